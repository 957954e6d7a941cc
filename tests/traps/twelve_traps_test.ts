/**
 * The twelve traps into which peers' trainers fell, by their issue trackers, and the tests that keep this one out: in
 * this folder, or where the part that they are about has its other tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

/** A trap, and its tests: a file under tests/, and what its tests' names contain. */
const TRAPS: readonly { trap: string; proofs: Readonly<Record<string, readonly string[]>> }[] = [
  {
    trap: "logits of all tokens and ids dominate memory",
    proofs: {
      "traps/logits_memory_test.ts": ["never holds its logits"],
      "ops/token_logps_test.ts": ["no more memory for 151,936 ids than for 4,096"],
      "train/plan_test.ts": ["holds nothing that grows with T times V"],
    },
  },
  {
    trap: "a token merged across the boundary of prompt and completion",
    proofs: {
      "data/encode_test.ts": [
        "a token merged across the boundary belongs to the completion",
        "prompt and completion together are always the whole text's tokens",
        "a boundary repaired down to no prompt at all is refused",
      ],
      "data/chat_template_test.ts": ["tokens that share a character of the assistant's are the assistant's"],
    },
  },
  {
    trap: "truncation that takes the whole completion, or none there at all",
    proofs: {
      "data/encode_test.ts": [
        "a prompt that leaves no room is refused, or dropped and counted",
        "completions without a token of their own are dropped and counted",
        "pairs that truncation makes equal are dropped and counted",
      ],
      "data/truncate_test.ts": ["neither completion loses a token"],
      "data/batch_test.ts": ["empty batches and sequences that cannot be scored are refused"],
    },
  },
  {
    trap: "EOS missing or twice, BOS doubled, padding that hides a real EOS",
    proofs: {
      "traps/padding_eos_test.ts": ["a completion's own EOS is learnt, once on each side"],
      "data/encode_test.ts": ["BOS comes once", "EOS comes once, at the completion's end"],
      "data/conversations_test.ts": ["no further BOS, no further EOS"],
      "data/truncate_test.ts": ["keep_end keeps BOS, once"],
    },
  },
  {
    trap: "accumulated micro-batches that are not the large batch",
    proofs: {
      "losses/accumulation_test.ts": ["three steps of 8 pairs are the same in parts"],
      "adapters/lora_test.ts": ["accumulated gradients are those of the whole batch"],
      "ops/kto_loss_test.ts": ["micro-batches of a step add up to the whole batch"],
    },
  },
  {
    trap: "an adapter that is trained already, turned off, as the reference",
    proofs: {
      "train/cli_test.ts": ["LoRA: trained, trained on, and merged, each by one command"],
      "train/kto_objective_test.ts": ["a trained adapter is kept as it was"],
      "adapters/lora_test.ts": ["kept log-probs belong to one adapter"],
    },
  },
  {
    trap: "nothing is trained: no parameter matched, a loss that stays log 2, no gradient",
    proofs: {
      "traps/nothing_trained_test.ts": ["targets that match no layer", "the first loss is left behind"],
      "train/kto_objective_test.ts": ["a run whose first gradient is zero stops and says so"],
      "train/optimizer_test.ts": ["frozen parameters are refused"],
    },
  },
  {
    trap: "an option that the chosen path ignores",
    proofs: {
      "losses/options_test.ts": [
        "an option that it does not read is refused, one that it reads changes the loss",
        "a loss without a reference refuses every setting of it",
      ],
      "train/config_test.ts": ["settings that cannot be honoured are refused"],
      "story/refusals_test.ts": ["the command line refuses"],
    },
  },
  {
    trap: "overflow in f16, rewards that are no numbers",
    proofs: {
      "traps/numbers_test.ts": ["stop the run, which names their batch"],
      "train/mixed_precision_test.ts": [
        "steps that overflow are skipped, halve the scale and change no weight",
      ],
      "train/trainer_test.ts": ["a NaN in any parameter stops the run at its step, names the items"],
      "data/columns_test.ts": ["columns of some records only, of other types"],
    },
  },
  {
    trap: "log-probs of a reference kept too long",
    proofs: {
      "train/reference_test.ts": [
        "another weight, token, split or order of pairs is another entry of the cache",
        "another config with the same weights is another entry of the cache",
        "a cut or damaged entry is computed again and replaced",
      ],
      "losses/first_loss_test.ts": ["a reference that is another model"],
    },
  },
  {
    trap: "log(1 - e^x) near x = 0; a KL estimate of one answer",
    proofs: {
      "ops/pair_loss_tails_test.ts": ["right where an answer is nearly certain, finite where it is certain"],
      "train/kto_run_test.ts": ["settings that a loss on labelled answers cannot honour are refused"],
      "ops/kto_loss_test.ts": ["one answer, and a KL estimate over micro-batches"],
    },
  },
  {
    trap: "dropout in preference training",
    proofs: {
      "traps/dropout_test.ts": ["dropout that a config asks for is off"],
      "adapters/adapter_files_test.ts": [
        "an adapter that was trained with dropout is used, and not trained on",
      ],
    },
  },
];

TRAPS.forEach(({ trap, proofs }, index) => {
  Deno.test(`trap ${index + 1}: ${trap}`, () => {
    for (const [file, names] of Object.entries(proofs)) {
      const text = readFileSync(new URL(`../${file}`, import.meta.url), "utf8");
      for (const name of names) assert.ok(text.includes(name), `tests/${file} has a test "... ${name} ..."`);
    }
  });
});

Deno.test("twelve they are", () => assert.equal(TRAPS.length, 12));
