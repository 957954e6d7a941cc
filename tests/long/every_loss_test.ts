/**
 * Every loss inside SPO, and every way to solve SPO with each of three losses.
 *
 * @module
 */
import { INSIDE_SPO, lossRunTests, SOLVED } from "../story/loss_runs.ts";

lossRunTests([...INSIDE_SPO, ...SOLVED]);
