/**
 * The hinge on DPO's margin: max(0, 1 - beta D). arXiv 2305.10425 (SLiC), 2309.06657 (RSO).
 * @module
 */
import { z } from "zod";
import { beta } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** Hinge loss. */
export const hinge: PairLoss = definePairLoss({
  name: "hinge",
  head: "hinge",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: () => 1,
});
