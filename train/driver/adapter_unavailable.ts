/**
 * The error of a machine on which no WebGPU adapter can be had, with what to install.
 * @module
 */

/** The packages that bring a Vulkan driver, by package manager, as a user would install them. */
export const DRIVER_PACKAGES: Readonly<Record<"apt" | "dnf" | "pacman", readonly string[]>> = {
  apt: ["libvulkan1", "mesa-vulkan-drivers"],
  dnf: ["vulkan-loader", "mesa-vulkan-drivers"],
  pacman: ["vulkan-icd-loader", "vulkan-swrast"],
};

/**
 * Thrown when neither the system nor the software driver gives a WebGPU adapter. Its message is complete:
 * print it as it is, without a stack trace, and exit with 1.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { AdapterUnavailableError } from "./adapter_unavailable.ts";
 *
 * assert.match(new AdapterUnavailableError("the disk is full").message, /sudo pacman -S .*vulkan-swrast/);
 * ```
 */
export class AdapterUnavailableError extends Error {
  /** The name that callers and test runners print. */
  override readonly name = "AdapterUnavailableError";

  /**
   * Words the whole message around the reason.
   *
   * @param reason why the software driver could not help, as a clause
   * @param options the usual `cause`
   */
  constructor(readonly reason: string, options?: ErrorOptions) {
    super(unavailableText(reason), options);
  }
}

function unavailableText(reason: string): string {
  const { apt, dnf, pacman } = DRIVER_PACKAGES;
  return [
    `Cannot open a WebGPU adapter: expected a Vulkan driver or a way to unpack a software one, found that ${reason}.`,
    "Install a driver, then run this again (a GPU needs its vendor's Vulkan driver instead):",
    `  Debian, Ubuntu:  sudo apt-get install ${apt.join(" ")}`,
    `  Fedora:          sudo dnf install ${dnf.join(" ")}`,
    `  Arch:            sudo pacman -S ${pacman.join(" ")}`,
  ].join("\n");
}
