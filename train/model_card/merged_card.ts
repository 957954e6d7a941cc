/**
 * The card of a merged model.
 * @module
 */
import { modelCard, TRAINING_TITLE } from "./card.ts";
import { codeSpan, publicPath } from "./escape.ts";

/**
 * The card of an adapter merged into its base. How the adapter was trained stands in its own card, where Keel wrote one.
 *
 * @param merged the adapter's name, and the base's where one was given, as the user wrote them
 * @param adapter the base that it names itself, and its card
 */
export function mergedCard(
  merged: { readonly adapter: string; readonly base?: string },
  adapter: { readonly base: string | null; readonly card?: string },
): string {
  const start = adapter.card?.indexOf(`\n${TRAINING_TITLE}\n`) ?? -1;
  return modelCard({
    kind: "model",
    summary: `The LoRA adapter ${
      codeSpan(publicPath(merged.adapter))
    }, merged into its base: a whole model in Hugging Face's layout.`,
    base: merged.base ?? adapter.base ?? undefined,
    ...(start < 0 ? {} : { training: adapter.card!.slice(start + 1) }),
  });
}
