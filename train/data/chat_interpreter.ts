/**
 * `@huggingface/jinja` with bounds, and with what it does otherwise than Jinja in Python. Its interpreter has one method
 * through which every node of a template passes; all changes stand there:
 *
 * - steps, text and `range` are bounded: a template comes with a model, from anyone;
 * - `{{ none }}`, `{{ true }}` and lists print as in Python;
 * - `.strip("\n")` and its halves honour their argument, and white space means what it means to Python;
 * - `1 == "1"` is false and `[] == []` true, `-7 % 3` is 2, text times a number repeats it, and text plus a number is
 *   refused;
 * - each turn of a loop has its own variables; `break` and `continue` keep what the turn has printed;
 * - `{% generation %}` blocks can be marked in the output.
 *
 * @module
 */
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { pythonEquals, pythonText, stripText, type TemplateValue } from "./python_values.ts";

type Program = ReturnType<typeof parse>;
type RuntimeValue = ReturnType<Interpreter["evaluate"]>;
type Node = Program["body"][number];
// deno-lint-ignore no-explicit-any -- nodes of many kinds; the library exports none of their types
type AnyNode = Node & Record<string, any>;

/** Stands for the tag in the text that the library parses; its own treatment is to drop the tag. */
const GENERATION = "__generation__";

const STATEMENTS = new Set([
  "Set",
  "If",
  "For",
  "Macro",
  "CallStatement",
  "FilterStatement",
  "Break",
  "Continue",
]);
const STRIPS = new Map([["strip", {}], ["lstrip", { right: false }], ["rstrip", { left: false }]]);

const PYTHON_OPERATORS = new Set(["==", "!=", "%", "*", "+"]);
/** Types for which a test is true in Python too. */
const MORE_TESTED = new Map([["iterable", "ObjectValue"], ["number", "BooleanValue"]]);

const BooleanValue = new Environment().set("flag", true).constructor as new (flag: boolean) => RuntimeValue;
const StringValue = new Environment().set("text", "").constructor as new (text: string) => RuntimeValue;

/** Most nodes within each other: a macro that calls itself would otherwise end with the stack, some time. */
const MAX_DEPTH = 500;

/** What a rendering may take. */
export interface TemplateBounds {
  /** Most nodes visited. */
  maxSteps: number;
  /** Longest text at any time, in UTF-16 units; longest list. */
  maxLength: number;
}

/** A parsed template. */
export interface ParsedTemplate {
  readonly program: Program;
  /** Whether it has `{% generation %}` blocks. */
  readonly hasGeneration: boolean;
}

/**
 * Parses a chat template, with white space as transformers sets it (`trim_blocks`, `lstrip_blocks`).
 *
 * @param text the template
 * @throws {SyntaxError} of the library
 */
export function parseTemplate(text: string): ParsedTemplate {
  let hasGeneration = false;
  // Comments, printed expressions and tags, whichever comes first, so that a tag within a comment is none.
  const source = text.replace(/\{#[^]*?#\}|\{\{[^]*?\}\}|\{%[^]*?%\}/g, (match) => {
    const tag = match.match(/^\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}$/);
    if (tag === null) return match;
    hasGeneration = true;
    const [, before, end, after] = tag;
    return `{%${before} ${end ? "endcall" : `call ${GENERATION}()`} ${after}%}`;
  });
  const program = parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
  prepare(program as AnyNode);
  return { program, hasGeneration };
}

/** Puts blocks and outputs where the library keeps lists of statements. */
function prepare(program: AnyNode): void {
  // The base class of the library's nodes, which it does not export: it looks for variables in its own nodes only.
  const prototype = Object.getPrototypeOf(Object.getPrototypeOf(program));
  const make = (fields: Record<string, unknown>) =>
    Object.assign(Object.create(prototype), fields) as AnyNode;
  const walk = (parent: AnyNode) => {
    for (const key of ["body", "alternate", "defaultBlock"]) {
      const list: AnyNode[] | undefined = parent[key];
      if (!Array.isArray(list)) continue;
      list.forEach(walk);
      const statements = list.filter(({ type }) => type !== "Comment").map((statement) =>
        STATEMENTS.has(statement.type) ? statement : make({ type: "Output", expression: statement })
      );
      parent[key] = [
        make({ type: parent.type === "For" && key === "body" ? "LoopBody" : "Block", statements }),
      ];
    }
  };
  walk(program);
}

/** A loop's turn that ended early, with what it had printed. */
interface EarlyEnd {
  kind: "Break" | "Continue";
  error: unknown;
  text: string;
}

/** Runs parsed templates within bounds. */
export class ChatInterpreter extends Interpreter {
  readonly #bounds: TemplateBounds;
  readonly #marks: { open: string; close: string };
  readonly #loops = new WeakMap<Environment, { length: number; isBroken: boolean }>();
  #steps = 0;
  #depth = 0;
  #early: EarlyEnd | undefined;

  /**
   * @param environment the template's variables
   * @param options bounds; texts around generation blocks
   */
  constructor(
    environment: Environment,
    options: { bounds: TemplateBounds; marks?: { open: string; close: string } },
  ) {
    super(environment);
    this.#bounds = options.bounds;
    this.#marks = options.marks ?? { open: "", close: "" };
  }

  /** Evaluates a node. */
  override evaluate(statement: Node | undefined, environment: Environment): RuntimeValue {
    if (++this.#steps > this.#bounds.maxSteps) {
      throw new RangeError(`expected at most ${this.#bounds.maxSteps} steps, found more (an endless loop?)`);
    }
    if (++this.#depth > MAX_DEPTH) {
      throw new RangeError(
        `expected nodes within at most ${MAX_DEPTH} others, found more (a macro without end?)`,
      );
    }
    const value = this.#evaluate(statement as AnyNode | undefined, environment);
    // Not where an error passes: only the end of a loop's turn is caught, which sets it back.
    this.#depth--;
    if (typeof value.value === "string" || Array.isArray(value.value)) this.#checkLength(value.value.length);
    return value;
  }

  #checkLength(length: number): void {
    if (length <= this.#bounds.maxLength) return;
    throw new RangeError(`expected text and lists of at most ${this.#bounds.maxLength}, found ${length}`);
  }

  #evaluate(node: AnyNode | undefined, environment: Environment): RuntimeValue {
    switch (node?.type) {
      case "Block":
        return new StringValue(this.#runBlock(node.statements, environment));
      case "LoopBody":
        return new StringValue(this.#runTurn(node.statements, environment));
      case "Output":
        return new StringValue(pythonText(this.evaluate(node.expression, environment) as TemplateValue));
      case "CallStatement":
        if (node.call.callee.value !== GENERATION) break;
        return new StringValue(
          this.#marks.open + this.#runBlock(node.body, new Environment(environment)) + this.#marks.close,
        );
      case "CallExpression":
        return this.#call(node, environment);
      case "FilterExpression":
        return this.#filter(node, environment);
      case "BinaryExpression":
        return this.#binary(node, environment);
      case "TestExpression":
        return this.#test(node, environment);
      case "Known":
        return node.value;
    }
    return super.evaluate(node, environment);
  }

  #runBlock(statements: AnyNode[], environment: Environment): string {
    let text = "";
    for (const statement of statements) {
      try {
        text += pythonText(this.#statementValue(statement, environment));
      } catch (error) {
        const early = this.#earlyEnd(error);
        if (early) early.text = text + early.text;
        throw error;
      }
      this.#checkLength(text.length);
    }
    return text;
  }

  #statementValue(statement: AnyNode, environment: Environment): TemplateValue {
    const kind = statement.type;
    try {
      const value = this.evaluate(statement, environment) as TemplateValue;
      // Statements that print nothing give none.
      return value.type === "NullValue" ? { type: "UndefinedValue", value: undefined } : value;
    } catch (error) {
      if (kind === "Break" || kind === "Continue") this.#early = { kind, error, text: "" };
      throw error;
    }
  }

  #earlyEnd(error: unknown): EarlyEnd | undefined {
    return this.#early?.error === error ? this.#early : undefined;
  }

  /** One turn of a loop; `scope` is the loop's own, the same for all its turns. */
  #runTurn(statements: AnyNode[], scope: Environment): string {
    const loop = this.#loops.get(scope) ?? { length: 0, isBroken: false };
    this.#loops.set(scope, loop);
    if (loop.isBroken) return "";
    const text = this.#turnText(statements, { scope, loop });
    loop.length += text.length;
    this.#checkLength(loop.length);
    return text;
  }

  #turnText(
    statements: AnyNode[],
    context: { scope: Environment; loop: { isBroken: boolean } },
  ): string {
    const depth = this.#depth;
    try {
      return this.#runBlock(statements, new Environment(context.scope));
    } catch (error) {
      const early = this.#earlyEnd(error);
      if (!early) throw error;
      this.#early = undefined;
      this.#depth = depth;
      context.loop.isBroken = early.kind === "Break";
      return early.text;
    }
  }

  /** `text.strip(characters)` and its halves, without arguments too. */
  #call(node: AnyNode, environment: Environment): RuntimeValue {
    const { callee, args } = node;
    const ends = callee.type === "MemberExpression" && !callee.computed && args.length < 2
      ? STRIPS.get(callee.property.value)
      : undefined;
    if (ends === undefined) return super.evaluate(node, environment);
    const object = this.evaluate(callee.object, environment);
    if (typeof object.value !== "string") {
      return super.evaluate({ ...node, callee: { ...callee, object: known(object) } } as Node, environment);
    }
    const characters = args.length === 0 ? undefined : this.evaluate(args[0], environment).value;
    if (characters !== undefined && characters !== null && typeof characters !== "string") {
      throw new TypeError(`${callee.property.value}: expected text, found ${typeof characters}`);
    }
    return new StringValue(stripText(object.value, { ...ends, characters: characters ?? undefined }));
  }

  /** `value | trim` */
  #filter(node: AnyNode, environment: Environment): RuntimeValue {
    if (node.filter.type !== "Identifier" || node.filter.value !== "trim") {
      return super.evaluate(node, environment);
    }
    return new StringValue(stripText(pythonText(this.evaluate(node.operand, environment) as TemplateValue)));
  }

  /** Operators that mean something else in Python, or nothing. */
  #binary(node: AnyNode, environment: Environment): RuntimeValue {
    const operator: string = node.operator.value;
    if (!PYTHON_OPERATORS.has(operator)) return super.evaluate(node, environment);
    const [left, right] = [this.evaluate(node.left, environment), this.evaluate(node.right, environment)];
    if (operator === "==" || operator === "!=") {
      const isEqual = pythonEquals(left as TemplateValue, right as TemplateValue);
      return new BooleanValue(isEqual === (operator === "=="));
    }
    const texts = [left, right].filter(({ type }) => type === "StringValue").length;
    if (operator === "%" && texts === 0 && left.type === "IntegerValue" && right.type === "IntegerValue") {
      return new (left.constructor as new (value: number) => RuntimeValue)(
        remainder(left.value, right.value),
      );
    }
    if (operator === "*" && left.type === "StringValue" && right.type === "IntegerValue") {
      const [text, count] = [left.value as string, Math.max(0, right.value as number)];
      this.#checkLength(text.length * count);
      return new StringValue(text.repeat(count));
    }
    // The library would print the number behind the text, or NaN.
    const isRefused = operator === "%"
      ? texts > 0
      : texts === 1 && operator === "+" && !isMissing(left, right);
    if (isRefused) {
      throw new TypeError(
        `operator ${operator}: expected two numbers or two texts, found ${left.type} and ${right.type}`,
      );
    }
    return super.evaluate({ ...node, left: known(left), right: known(right) } as Node, environment);
  }

  /** `value is iterable`, `value is number` */
  #test(node: AnyNode, environment: Environment): RuntimeValue {
    const more = MORE_TESTED.get(node.test.value);
    const operand = this.evaluate(node.operand, environment);
    if (more === operand.type) return new BooleanValue(!node.negate);
    return super.evaluate({ ...node, operand: known(operand) } as Node, environment);
  }
}

/** Python's remainder has the divisor's sign. */
function remainder(a: unknown, b: unknown): number {
  const [dividend, divisor] = [a as number, b as number];
  if (divisor === 0) throw new RangeError("expected a divisor other than 0, found 0");
  return ((dividend % divisor) + divisor) % divisor;
}

/** Of these the library itself says what is wrong. */
function isMissing(...values: RuntimeValue[]): boolean {
  return values.some(({ type }) => type === "UndefinedValue" || type === "NullValue");
}

/** A node for a value: what was evaluated once is not evaluated again. */
function known(value: RuntimeValue): AnyNode {
  return { type: "Known", value };
}
