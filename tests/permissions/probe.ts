/**
 * Tries what a run must not be able to do, in the place of the real program: run with the permissions of a command.
 *
 * @module
 */

/** Something to try, and on what: PID stands for the number of the process. */
export type Attempt = readonly [kind: keyof typeof ATTEMPTS, target: string];

/** What became of an attempt: `done`, or the name of the error. */
export type Verdict = string;

export const ATTEMPTS = {
  read: (path: string) => Deno.readFile(path),
  list: (path: string) => Array.fromAsync(Deno.readDir(path)),
  look: (path: string) => Deno.lstat(path),
  write: (path: string) => Deno.writeTextFile(path, "written by the probe"),
  append: (path: string) => Deno.writeTextFile(path, "more", { append: true }),
  makeFolder: (path: string) => Deno.mkdir(path),
  remove: (path: string) => Deno.remove(path),
  /** To a name beside it, as a file that is written atomically has it. */
  rename: (path: string) => Deno.rename(path, `${path}.moved`),
  /** In the folder, to a file outside. */
  link: (path: string) => Deno.symlink("/etc/passwd", path),
  hardLink: (path: string) => Deno.link("/etc/hostname", path),
  changeMode: (path: string) => Deno.chmod(path, 0o777),
  temporary: (dir: string) => Deno.makeTempFile(dir === "" ? {} : { dir }),
  env: (name: string) => Promise.resolve(Deno.env.get(name)),
  allEnv: () => Promise.resolve(Deno.env.toObject()),
  setEnv: (name: string) => Promise.resolve(Deno.env.set(name, "1")),
  connect: (port: string) => Deno.connect({ hostname: "127.0.0.1", port: Number(port) }),
  listen: () => Promise.resolve(Deno.listen({ port: 0 })),
  unixSocket: (path: string) => Promise.resolve(Deno.listen({ transport: "unix", path })),
  fetch: (url: string) => fetch(url),
  resolveName: (name: string) => Deno.resolveDns(name, "A"),
  run: (program: string) => new Deno.Command(program, { args: ["--version"] }).output(),
  library: (path: string) => Promise.resolve(Deno.dlopen(path, {})),
  pointer: () => Promise.resolve(Deno.UnsafePointer.create(4096n)),
  system: (name: string) => Promise.resolve((Deno as unknown as Record<string, () => unknown>)[name]()),
  import: (path: string) => import(path),
  worker: (path: string) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(path, "file:///"), { type: "module" });
      worker.onmessage = resolve;
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message.replace(/^.*?(?=Requires)/, "")));
      };
    }),
  kill: (pid: string) => Promise.resolve(Deno.kill(Number(pid), "SIGCONT")),
  /** Asks for more; nobody is asked for it. */
  request: async (name: string) => {
    const { state } = await Deno.permissions.request({ name: name as "read" });
    if (state !== "granted") throw new Deno.errors.NotCapable(state);
  },
} satisfies Record<string, (target: string) => Promise<unknown>>;

async function attempt([kind, target]: Attempt): Promise<Verdict> {
  try {
    await ATTEMPTS[kind](target.replace("PID", `${Deno.pid}`));
    return "done";
  } catch (error) {
    const { name, message } = error as Error;
    // How a module that may not be loaded is told.
    return /^Requires \w+ access to /.test(message) ? "NotCapable" : name;
  }
}

if (import.meta.main) {
  const attempts: Attempt[] = JSON.parse(Deno.args[0]);
  const verdicts: Verdict[] = [];
  for (const one of attempts) verdicts.push(await attempt(one));
  console.log(JSON.stringify(verdicts));
  Deno.exit(0);
}
