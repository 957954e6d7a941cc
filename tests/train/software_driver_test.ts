import assert from "node:assert/strict";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import project from "../../deno.json" with { type: "json" };
import { AdapterUnavailableError } from "../../train/driver/adapter_unavailable.ts";
import { cacheHome, driverFolder, readStamp, STAMP_FORMAT } from "../../train/driver/driver_folder.ts";
import { listLibraries, loadLibraries, manifestText } from "../../train/driver/load.ts";
import { choosePackages, parsePackageRecords, parsePrintedUris } from "../../train/driver/packages.ts";
import { unpackDriver } from "../../train/driver/unpack.ts";
import { ensureAdapter } from "../../train/software_driver.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const ON_LINUX = Deno.build.os === "linux";
/** The set-up as deno.json starts it, with the permissions that its task has. */
const SET_UP = project.tasks.setup.command.split(" && ")[1].split(" ");

const RECORDS = `Package: mesa-vulkan-drivers
Version: 22.3.6-1+deb12u2
Depends: libvulkan1, python3:any | python3-minimal, libc6 (>= 2.34),
 libllvm15 (>= 1:15), libstdc++6 (>= 11)
Description: drivers
 Depends: not-a-field

Package: libvulkan1
Version: 1.3.239.0-1
Depends: libc6 (>= 2.34)

Package: libllvm15
Version: 1:15.0.6-4
Pre-Depends: libz3-dev | libz3-4 (>= 4.8)
Depends: libzip-virtual

Package: libz3-4
Version: 4.8.12-3.1

Package: zlib1g
Version: 1:1.2.13
Provides: libzip-virtual (= 1.2), libother

Package: python3
Version: 3.11.2-1
Depends: libpython3-stdlib

Package: libpython3-stdlib
Version: 3.11.2-1

Package: libc6
Version: 2.36-9
`;

Deno.test("printed URIs give names and versions, and nothing else of the output", () => {
  const output = `Reading package lists...
'http://h/pool/z.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86684 MD5Sum:ec42
'http://h/pool/m.deb' mesa-vulkan-drivers_22.3.6-1+deb12u2_arm64.deb 8000740
0 upgraded`;
  assert.deepEqual(parsePrintedUris(output), [
    "zlib1g=1:1.2.13.dfsg-1",
    "mesa-vulkan-drivers=22.3.6-1+deb12u2",
  ]);
});

Deno.test("packages: libraries reached from the driver, alternatives and provided names too, no interpreter", () => {
  const chosen = choosePackages(parsePackageRecords(RECORDS), ["libvulkan1", "mesa-vulkan-drivers"]);
  assert.deepEqual(chosen, [
    "libllvm15=1:15.0.6-4",
    "libvulkan1=1.3.239.0-1",
    "libz3-4=4.8.12-3.1",
    "mesa-vulkan-drivers=22.3.6-1+deb12u2",
    "zlib1g=1:1.2.13",
  ]);
});

Deno.test("packages: a library that no record gives is an error", () => {
  const records = parsePackageRecords(RECORDS).filter((record) => record.name !== "libz3-4");
  const choose = () => choosePackages(records, ["mesa-vulkan-drivers"]);
  assert.throws(choose, { name: "RangeError", message: /expected one of libz3-dev, libz3-4/ });
});

Deno.test("cache folder: XDG_CACHE_HOME where absolute, else ~/.cache; one folder per release and architecture", () => {
  assert.equal(cacheHome("/fast", "/home/ada"), "/fast");
  assert.equal(cacheHome("relative", "/home/ada"), join("/home/ada", ".cache"));
  assert.equal(cacheHome("", "/home/ada"), join("/home/ada", ".cache"));
  const name = (osRelease: string) =>
    basename(driverFolder("/cache", { osRelease, architecture: "aarch64" }));
  assert.equal(name('NAME="x"\nVERSION_ID="24.04"\nID=ubuntu\n'), "ubuntu-24.04-aarch64");
  assert.equal(name("ID=debian\nVERSION_CODENAME=forky\n"), "debian-forky-aarch64");
  assert.equal(name(""), "linux-rolling-aarch64");
});

Deno.test("a folder counts as unpacked only with a whole stamp of this layout", async () => {
  const folder = await Deno.makeTempDir();
  const stamp = join(folder, "stamp.json");
  assert.equal(readStamp(join(folder, "absent")), undefined);
  assert.equal(readStamp(folder), undefined);
  await Deno.writeTextFile(stamp, '{"format": 1, "pack');
  assert.equal(readStamp(folder), undefined);
  await Deno.writeTextFile(stamp, JSON.stringify({ format: STAMP_FORMAT + 1, packages: [] }));
  assert.equal(readStamp(folder), undefined);
  await Deno.writeTextFile(stamp, JSON.stringify({ format: STAMP_FORMAT, packages: ["a=1"] }));
  assert.deepEqual(readStamp(folder)?.packages, ["a=1"]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("manifest names the driver by its absolute path", () => {
  assert.deepEqual(JSON.parse(manifestText('/a "b"/libvulkan_lvp.so', "1.1.230")), {
    file_format_version: "1.0.0",
    ICD: { library_path: '/a "b"/libvulkan_lvp.so', api_version: "1.1.230" },
  });
});

Deno.test("libraries load in whatever order satisfies them; those that never do keep their reason", () => {
  const needs: Record<string, string[]> = { a: ["b"], b: ["c"], c: [], d: ["absent"] };
  const opened: string[] = [];
  const failures = loadLibraries(Object.keys(needs), (path) => {
    const missing = needs[path].find((name) => !opened.includes(name));
    if (missing !== undefined) throw new Error(`${missing}: cannot open`);
    opened.push(path);
  });
  assert.deepEqual(opened, ["c", "b", "a"]);
  assert.deepEqual([...failures], [["d", "absent: cannot open"]]);
});

Deno.test("the error names the exact packages of apt, dnf and pacman, and the reason", () => {
  const { message } = new AdapterUnavailableError("the disk is full");
  assert.match(message, /^Cannot open a WebGPU adapter: expected .*, found that the disk is full\.\n/);
  assert.match(message, /sudo apt-get install libvulkan1 mesa-vulkan-drivers$/m);
  assert.match(message, /sudo dnf install vulkan-loader mesa-vulkan-drivers$/m);
  assert.match(message, /sudo pacman -S vulkan-icd-loader vulkan-swrast$/m);
});

// Stand-ins for apt and dpkg: a driver of two packages, each of which unpacks to one file.
const FAKE_TOOLS: Record<string, string> = {
  "dpkg": "echo amd64",
  "apt-get": `case "$*" in
*print-uris*) printf "'u' libvulkan1_1_amd64.deb 1\\n'u' mesa-vulkan-drivers_2_amd64.deb 1\\n" ;;
*download*) [ -z "$KEEL_TEST_NO_NETWORK" ] || { echo "E: Failed to fetch u" >&2; exit 100; }
  : >libvulkan1.deb; : >mesa-vulkan-drivers.deb ;;
*update*) echo "W: Failed to fetch one of several" ;;
esac`,
  "apt-cache": `printf "Package: libvulkan1\\nVersion: 1\\n\\nPackage: mesa-vulkan-drivers\\nVersion: 2\\n"`,
  "dpkg-deb": `mkdir -p "$3/usr/lib/x" && : >"$3/usr/lib/x/$(basename "$2" .deb).so"`,
};

async function withFakeTools(run: (cache: string) => Promise<void>): Promise<void> {
  const cache = await Deno.makeTempDir({ prefix: "keel test " });
  const tools = join(cache, "tools");
  await Deno.mkdir(tools);
  for (const [name, script] of Object.entries(FAKE_TOOLS)) {
    await Deno.writeTextFile(join(tools, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const path = Deno.env.get("PATH") ?? "";
  Deno.env.set("PATH", `${tools}:${path}`);
  try {
    await run(cache);
  } finally {
    Deno.env.set("PATH", path);
    Deno.env.delete("KEEL_TEST_NO_NETWORK");
    await Deno.remove(cache, { recursive: true });
  }
}

const listFolder = (path: string) => [...Deno.readDirSync(path)].map((entry) => entry.name).sort();

Deno.test({
  name: "unpacking at once by several, over a half-unpacked folder, leaves one whole folder and no other",
  ignore: !ON_LINUX,
  fn: () =>
    withFakeTools(async (cache) => {
      const parent = join(cache, "keel");
      const folder = join(parent, "debian-12");
      const abandoned = join(parent, ".debian-12-killed");
      await Deno.mkdir(join(folder, "usr"), { recursive: true });
      await Deno.mkdir(abandoned);
      await Deno.utime(abandoned, 0, 0);
      await Promise.all([unpackDriver(folder), unpackDriver(folder), unpackDriver(folder)]);
      assert.deepEqual(listFolder(parent), ["debian-12"]);
      assert.deepEqual(readStamp(folder)?.packages, ["libvulkan1=1", "mesa-vulkan-drivers=2"]);
      assert.deepEqual(listFolder(join(folder, "usr", "lib", "x")), [
        "libvulkan1.so",
        "mesa-vulkan-drivers.so",
      ]);
    }),
});

Deno.test({
  name: "a failed download leaves nothing behind and says why",
  ignore: !ON_LINUX,
  fn: () =>
    withFakeTools(async (cache) => {
      Deno.env.set("KEEL_TEST_NO_NETWORK", "1");
      const folder = join(cache, "keel", "debian-12");
      await assert.rejects(unpackDriver(folder), {
        name: "AdapterUnavailableError",
        message: /apt-get failed \(E: Failed to fetch u\)/,
      });
      assert.deepEqual(listFolder(join(cache, "keel")), []);
    }),
});

function runDeno(args: string[], env: Record<string, string>): Promise<Deno.CommandOutput> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    env: { NO_COLOR: "1", ...env },
    cwd: ROOT,
    clearEnv: ON_LINUX, // elsewhere the system cannot do without some variables
    stdin: "null",
  });
  return command.output();
}

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

Deno.test({
  name: "set-up without a driver and without apt-get: one clear error, exit code 1, no stack trace",
  ignore: !ON_LINUX,
  async fn() {
    const cache = await Deno.makeTempDir();
    const env = { PATH: cache, HOME: homedir(), XDG_CACHE_HOME: cache, VK_DRIVER_FILES: "/absent.json" };
    const { code, stdout, stderr } = await runDeno([...SET_UP.slice(1), "--quiet"], env);
    assert.equal(code, 1);
    assert.match(decode(stdout), /^No Vulkan driver finds a device: unpacking .*\n$/);
    assert.match(decode(stderr), /^Cannot open a WebGPU adapter: .*dpkg, which is not on PATH/);
    assert.equal(decode(stderr).trim().split("\n").length, 5);
    assert.doesNotMatch(decode(stderr), /^\s+at /m);
    assert.deepEqual(listFolder(join(cache, "keel", "software_driver")), []);
    await Deno.remove(cache, { recursive: true });
  },
});

Deno.test("in a clean environment a process gets an adapter that runs a compute shader", async () => {
  const inherited = ["PATH", "HOME", "XDG_CACHE_HOME"].flatMap((name): [string, string][] => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  const script = fileURLToPath(import.meta.url);
  const { code, stdout, stderr } = await runDeno(["run", "-A", script], Object.fromEntries(inherited));
  assert.equal(decode(stderr), "");
  assert.equal(code, 0);
  assert.equal(decode(stdout), "0,2,4,6\n");
});

// ELF, 64 bits, little-endian: the dynamic section lists the names of the libraries that must be there.
function neededLibraries(path: string): string[] {
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  const u64 = (offset: number) => Number(view.getBigUint64(offset, true));
  const header = (index: number) => u64(0x28) + index * view.getUint16(0x3a, true);
  const needed: string[] = [];
  for (let index = 0; index < view.getUint16(0x3c, true); index++) {
    if (view.getUint32(header(index) + 4, true) !== 6) continue; // SHT_DYNAMIC
    const strings = u64(header(view.getUint32(header(index) + 0x28, true)) + 0x18);
    for (let entry = u64(header(index) + 0x18); u64(entry) !== 0; entry += 16) {
      if (u64(entry) !== 1) continue; // DT_NEEDED
      const start = strings + u64(entry + 8);
      needed.push(decode(bytes.subarray(start, bytes.indexOf(0, start))));
    }
  }
  return needed;
}

const ASSUMED_LIBRARY = /^(libc|libm|libpthread|libdl|librt|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+$/;
const source = await ensureAdapter();

Deno.test({
  name: "every library that the unpacked driver needs is unpacked with it (only where it is in use)",
  ignore: source.kind !== "software",
  fn() {
    assert(source.kind === "software");
    const libraries = listLibraries(source.folder);
    assert(libraries.some((path) => basename(path) === "libvulkan_lvp.so"));
    const present = new Set(libraries.flatMap((path) => listFolder(join(path, ".."))));
    const missing = libraries.flatMap(neededLibraries).filter((name) =>
      !present.has(name) && !ASSUMED_LIBRARY.test(name)
    );
    assert.deepEqual([...new Set(missing)], []);
    assert(libraries.flatMap(neededLibraries).length > libraries.length, "no needed libraries were read");
  },
});

async function doubleOnGpu(): Promise<string> {
  const adapter = await navigator.gpu.requestAdapter();
  assert(adapter !== null, "requestAdapter() gave null");
  const device = await adapter.requestDevice();
  const code = `@group(0) @binding(0) var<storage, read_write> y: array<u32>;
    @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = 2u * id.x; }`;
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const y = device.createBuffer({ size: 16, usage: STORAGE | COPY_SRC });
  const readback = device.createBuffer({ size: 16, usage: COPY_DST | MAP_READ });
  const layout = pipeline.getBindGroupLayout(0);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: y } }] }),
  );
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(y, 0, readback, 0, 16);
  device.queue.submit([encoder.finish()]);
  await readback.mapAsync(GPUMapMode.READ);
  const text = new Uint32Array(readback.getMappedRange()).join();
  device.destroy();
  return text;
}

// Run as a program, this file is the child process of the compute shader test; `source` above has prepared it.
if (import.meta.main) console.log(await doubleOnGpu());
