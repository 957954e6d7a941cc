/**
 * Another program in the place of this one, which keeps its process: number, parent, terminal, signals, open streams.
 * Nothing has to be passed on, and there is no second process that could be left behind.
 * @module
 */

const LIBC: Readonly<Partial<Record<typeof Deno.build.os, string>>> = {
  linux: "libc.so.6",
  darwin: "libSystem.B.dylib",
};

/**
 * Starts a program in this process (POSIX execv); on systems without it, as a child whose end is awaited.
 *
 * @param program its file
 * @param args its arguments
 * @returns the exit code of the child, where it is one; otherwise it does not return
 * @throws {Error} where the program cannot be started
 */
export async function replaceProcess(program: string, args: readonly string[]): Promise<number> {
  const libc = LIBC[Deno.build.os];
  if (libc !== undefined) throw execute(libc, [program, ...args]);
  // Ctrl-C reaches both; the child says what it means.
  Deno.addSignalListener("SIGINT", () => {});
  const child = new Deno.Command(program, {
    args: [...args],
    ...{ stdin: "inherit", stdout: "inherit", stderr: "inherit" },
  }).spawn();
  return (await child.status).code;
}

/** @returns why it returned at all */
function execute(libc: string, words: readonly string[]): Error {
  const library = Deno.dlopen(libc, { execv: { parameters: ["buffer", "buffer"], result: "i32" } });
  const encoder = new TextEncoder();
  const texts = words.map((word) => encoder.encode(`${word}\0`));
  const addresses = texts.map((text) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(text)));
  // The list ends with a null pointer.
  const list = new BigUint64Array([...addresses, 0n]);
  library.symbols.execv(texts[0], list);
  return new Error(`Cannot start ${words[0]}: expected the system to run it, found that it refuses`);
}
