/**
 * How Python writes, compares and strips values, where a chat template made for Python shows it: `{{ none }}`,
 * `content == []`, `.strip("\n")`, `strftime_now("%d %b %Y")`.
 *
 * @module
 */

/** What `str.isspace` says of Python's str: neither U+FEFF nor JavaScript's other exceptions. */
// deno-lint-ignore no-control-regex -- Python counts the separators among them as white space
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = "January February March April May June July August September October November December".split(
  " ",
);

/** Types that compare as numbers. */
const NUMBERS = new Set(["IntegerValue", "FloatValue", "BooleanValue"]);

/** A value of a template at run time, as far as it is printed. */
export interface TemplateValue {
  /** The class's name, such as `StringValue`. */
  readonly type: string;
  /** What it holds. */
  readonly value: unknown;
}

/**
 * Python's `str.strip` and its halves.
 *
 * @param text the text
 * @param options which ends; `characters` to remove, white space by default
 */
export function stripText(
  text: string,
  options: { characters?: string; left?: boolean; right?: boolean } = {},
): string {
  const { characters, left = true, right = true } = options;
  const all = Array.from(text);
  const goes = (character: string) =>
    characters === undefined ? SPACE.test(character) : characters.includes(character);
  let [start, end] = [0, all.length];
  while (left && start < end && goes(all[start])) start++;
  while (right && end > start && goes(all[end - 1])) end--;
  return all.slice(start, end).join("");
}

/**
 * Python's `str(value)`.
 *
 * @param value a value of a template
 * @returns its text; an undefined value has none
 */
export function pythonText(value: TemplateValue): string {
  if (value.type === "StringValue") return value.value as string;
  return value.type === "UndefinedValue" ? "" : pythonRepr(value);
}

/**
 * Python's `a == b`.
 *
 * @param a a value of a template
 * @param b another
 */
export function pythonEquals(a: TemplateValue, b: TemplateValue): boolean {
  if (NUMBERS.has(a.type) && NUMBERS.has(b.type)) return Number(a.value) === Number(b.value);
  if (a.type !== b.type) return false;
  if (Array.isArray(a.value) && Array.isArray(b.value)) {
    const [left, right] = [a.value as TemplateValue[], b.value as TemplateValue[]];
    return left.length === right.length && left.every((item, i) => pythonEquals(item, right[i]));
  }
  if (a.value instanceof Map && b.value instanceof Map) {
    const [left, right] = [a.value as Map<string, TemplateValue>, b.value as Map<string, TemplateValue>];
    return left.size === right.size && [...left].every(([key, item]) => {
      const other = right.get(key);
      return other !== undefined && pythonEquals(item, other);
    });
  }
  return a.value === b.value;
}

/** Python's `repr(value)`. */
function pythonRepr({ type, value }: TemplateValue): string {
  switch (type) {
    case "StringValue":
      return quote(value as string);
    case "BooleanValue":
      return value ? "True" : "False";
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "FloatValue":
      return Number.isInteger(value) ? `${value}.0` : String(value);
    case "ArrayValue":
      return `[${(value as TemplateValue[]).map(pythonRepr).join(", ")}]`;
    case "TupleValue": {
      const items = (value as TemplateValue[]).map(pythonRepr);
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
    }
    case "ObjectValue": {
      const entries = [...value as Map<string, TemplateValue>];
      return `{${entries.map(([key, item]) => `${quote(key)}: ${pythonRepr(item)}`).join(", ")}}`;
    }
    case "IntegerValue":
      return String(value);
    default:
      throw new TypeError(`expected a value that can be printed, found a ${type}`);
  }
}

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes: Record<string, string> = {
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    [mark]: `\\${mark}`,
  };
  // deno-lint-ignore no-control-regex -- these are the characters that are written as escapes
  const escaped = text.replace(/[\\\n\r\t'"]|[\x00-\x1f\x7f-\xa0\xad]/g, (character) => {
    if (character === "'" || character === '"') return character === mark ? `\\${mark}` : character;
    return escapes[character] ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  return mark + escaped + mark;
}

/**
 * Python's `strftime` in the C locale.
 *
 * @param time the local time
 * @param format text with directives such as `%d`; a directive that is not known stays as it is
 */
export function formatTime(time: Date, format: string): string {
  const pad = (value: number, width = 2) => String(value).padStart(width, "0");
  const start = new Date(time.getFullYear(), 0, 1);
  const dayOfYear = Math.round((startOfDay(time).getTime() - start.getTime()) / 86_400_000) + 1;
  const values: Record<string, string> = {
    a: DAYS[time.getDay()].slice(0, 3),
    A: DAYS[time.getDay()],
    b: MONTHS[time.getMonth()].slice(0, 3),
    B: MONTHS[time.getMonth()],
    d: pad(time.getDate()),
    H: pad(time.getHours()),
    I: pad(time.getHours() % 12 || 12),
    j: pad(dayOfYear, 3),
    m: pad(time.getMonth() + 1),
    M: pad(time.getMinutes()),
    p: time.getHours() < 12 ? "AM" : "PM",
    S: pad(time.getSeconds()),
    y: pad(time.getFullYear() % 100),
    Y: String(time.getFullYear()),
    "%": "%",
  };
  return format.replace(/%(.)/g, (directive, letter) => values[letter] ?? directive);
}

function startOfDay(time: Date): Date {
  return new Date(time.getFullYear(), time.getMonth(), time.getDate());
}
