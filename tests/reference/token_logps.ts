/**
 * Log-probability of each labelled token under a language-model head, in plain f64.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of a token log-probability. */
export interface TokenLogpsInputs {
  /** `[N, C]` last hidden states. */
  hidden: Float64Array;
  /** `[V, C]` unembedding. */
  lmHead: Float64Array;
  /** `[N]` the token to score on each row (already shifted), or -100 for a row that does not count. */
  labels: ArrayLike<number>;
}

/** Sizes of a token log-probability. */
export interface TokenLogpsDims {
  /** Rows. */
  N: number;
  /** Hidden size. */
  C: number;
  /** Vocabulary. */
  V: number;
}

/** Label of a row that does not count. */
export const IGNORED_LABEL = -100;

/**
 * logp = z[label] - logsumexp(z), z = lmHead hidden[n], for the rows that have a label.
 *
 * @param inputs Hidden states, unembedding and labels.
 * @param dims Sizes.
 * @returns logps `[M]` in row order and the saved logsumexp as lse `[M]`, M the number of labelled rows.
 * @throws {RangeError} When a length disagrees with the dimensions or a label is outside the vocabulary.
 */
export function forward(
  inputs: TokenLogpsInputs,
  dims: TokenLogpsDims,
): { logps: Float64Array; lse: Float64Array } {
  const rows = labelledRows(inputs, dims);
  const logps = new Float64Array(rows.length);
  const lse = new Float64Array(rows.length);
  rows.forEach((n, m) => {
    const logits = logitsOf(inputs, dims, { n });
    lse[m] = logSumExp(logits);
    logps[m] = logits[inputs.labels[n]] - lse[m];
  });
  return { logps, lse };
}

/**
 * logp = z[y] - logsumexp(z) and z = lmHead hidden, so dZ[v] = dLogp (1[v = y] - p[v]), dHidden = lmHead^T dZ,
 * dLmHead[v] = sum dZ[v] hidden.
 *
 * @param inputs Hidden states, unembedding and labels.
 * @param dims Sizes.
 * @param upstream dLogps `[M]`, one per labelled row.
 * @returns dHidden `[N, C]`, zero on rows that do not count, and dLmHead `[V, C]`.
 * @throws {RangeError} When a length disagrees with the dimensions or a label is outside the vocabulary.
 */
export function backward(
  inputs: TokenLogpsInputs,
  dims: TokenLogpsDims,
  { dLogps }: { dLogps: Float64Array },
): { dHidden: Float64Array; dLmHead: Float64Array } {
  const { hidden, lmHead, labels } = inputs;
  const { C, V } = dims;
  const rows = labelledRows(inputs, dims);
  requireLengths("token_logps backward", { dLogps: [dLogps, rows.length] });
  const dHidden = new Float64Array(hidden.length);
  const dLmHead = new Float64Array(lmHead.length);
  rows.forEach((n, m) => {
    const logits = logitsOf(inputs, dims, { n });
    const lse = logSumExp(logits);
    for (let v = 0; v < V; v++) {
      const dLogit = dLogps[m] * ((v === labels[n] ? 1 : 0) - Math.exp(logits[v] - lse));
      for (let c = 0; c < C; c++) {
        dHidden[n * C + c] += dLogit * lmHead[v * C + c];
        dLmHead[v * C + c] += dLogit * hidden[n * C + c];
      }
    }
  });
  return { dHidden, dLmHead };
}

/** Numbers a row of {@link statistics}. */
export const STATISTICS = ["entropy", "mean logit", "hit", "log sum of p^2"] as const;

/**
 * What the logits of each labelled row look like.
 *
 * @param inputs Hidden states, unembedding and labels.
 * @param dims Sizes.
 * @returns `[M, 4]`: entropy -sum p log p; mean of the logits; 1 where the label is the largest logit's id, the lowest of
 * equal ones, else 0; log sum p^2.
 * @throws {RangeError} When a length disagrees with the dimensions or a label is outside the vocabulary.
 */
export function statistics(inputs: TokenLogpsInputs, dims: TokenLogpsDims): Float64Array {
  const sum = (values: Float64Array) => values.reduce((total, value) => total + value, 0);
  return Float64Array.from(
    labelledRows(inputs, dims).flatMap((n) => {
      const logits = logitsOf(inputs, dims, { n });
      const lse = logSumExp(logits);
      const largest = logits.reduce((a, b) => Math.max(a, b));
      return [
        -sum(logits.map((z) => Math.exp(z - lse) * (z - lse))),
        sum(logits) / logits.length,
        logits.indexOf(largest) === inputs.labels[n] ? 1 : 0,
        logSumExp(logits.map((z) => 2 * (z - lse))),
      ];
    }),
  );
}

function labelledRows(inputs: TokenLogpsInputs, { N, C, V }: TokenLogpsDims): number[] {
  const { hidden, lmHead, labels } = inputs;
  requireLengths("token_logps", { hidden: [hidden, N * C], lmHead: [lmHead, V * C], labels: [labels, N] });
  const rows = [];
  for (let n = 0; n < N; n++) {
    if (labels[n] === IGNORED_LABEL) continue;
    if (!(Number.isInteger(labels[n]) && labels[n] >= 0 && labels[n] < V)) {
      throw new RangeError(
        `Cannot score row ${n}: expected a label from 0 to ${V - 1} or ${IGNORED_LABEL}, found ${labels[n]}`,
      );
    }
    rows.push(n);
  }
  return rows;
}

function logitsOf(
  { hidden, lmHead }: TokenLogpsInputs,
  { C, V }: TokenLogpsDims,
  { n }: { n: number },
): Float64Array {
  const logits = new Float64Array(V);
  for (let v = 0; v < V; v++) {
    for (let c = 0; c < C; c++) logits[v] += lmHead[v * C + c] * hidden[n * C + c];
  }
  return logits;
}

function logSumExp(values: Float64Array): number {
  const largest = values.reduce((a, b) => Math.max(a, b));
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}
