/**
 * What zod found wrong with a setting, in the words of our errors.
 * @module
 */
import type { z } from "zod";

/** What was expected. */
export function describeIssue(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return `${issue.values.length > 1 ? "one of " : ""}${issue.values.map(String).join(", ")}`;
    case "invalid_type":
      return `a value of type ${issue.expected}`;
    case "invalid_union":
      return issue.errors.map(([first]) => describeIssue(first)).join(" or ");
    case "too_small":
      if (issue.origin === "string") return "a text that is not empty";
      return `${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`;
    case "too_big":
      return `${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`;
    default:
      return issue.message;
  }
}
