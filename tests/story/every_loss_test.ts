/**
 * Every loss alone and every way to solve SPO, by flags; `deno task test:long` runs each loss inside SPO as well.
 *
 * @module
 */
import { ALONE, INSIDE_SPO, lossRunTests, SOLVED, UNPAIRED } from "./loss_runs.ts";

lossRunTests([...ALONE, ...UNPAIRED]);
// A Latin square of them: every loss of the three is solved in two ways, every way is taken once.
lossRunTests(SOLVED.filter((_, index) => Math.floor(index / 6) === index % 3));
// One in five, so that each file of data and each group of the registry is met.
lossRunTests(INSIDE_SPO.filter((_, index) => index % 5 === 0));
