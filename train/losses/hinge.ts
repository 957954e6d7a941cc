/**
 * The hinge on DPO's margin: max(0, 1 - beta D). arXiv 2305.10425 (SLiC), 2309.06657 (RSO).
 * @module
 */
import { z } from "zod";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** Hinge loss. */
export const hinge: PairLoss = definePairLoss({
  name: "hinge",
  options: z.strictObject({ beta: z.number().positive().default(0.1) }),
  needsReference: true,
  head: ({ beta }) => ({ loss: "hinge", beta, option: 0 }),
  initialLoss: () => 1,
});
