/**
 * The MPI library of this machine, through FFI: found, told apart, and its functions and constants under one type.
 * @module
 */
import { MpiUnavailableError } from "./errors.ts";
import type { Launch, MpiFamily } from "./launch.ts";
import type { ReduceOp } from "./communicator.ts";

/** A handle of MPI: an address in Open MPI, a number in MPICH; opaque to both. */
export type Handle = Deno.PointerValue;

/** Element types of messages. */
export type Datatype = "f32" | "f64" | "i32" | "u64" | "byte";

/** An open library. */
export interface MpiLibrary {
  /** Whose binary interface it has. */
  readonly family: MpiFamily;
  /** As it calls itself. */
  readonly version: string;
  /** MPI's functions; each returns an error code. */
  readonly functions: MpiFunctions;
  /** MPI_COMM_WORLD. */
  readonly world: Handle;
  /** MPI_ERRORS_RETURN. */
  readonly errorsReturn: Handle;
  /** MPI_IN_PLACE. */
  readonly inPlace: Deno.PointerValue;
  /** MPI_FLOAT and the others. */
  readonly datatypes: Readonly<Record<Datatype, Handle>>;
  /** MPI_SUM and the others. */
  readonly ops: Readonly<Record<ReduceOp, Handle>>;
}

/** MPI's functions as they are called here. */
export type MpiFunctions = Deno.StaticForeignLibraryInterface<ReturnType<typeof prototypes>>;

/** Names that loaders know, the usual one first. Upstream's MPICH and its kin call theirs libmpi.so.12. */
const FILES: Readonly<Record<MpiFamily, Readonly<Partial<Record<typeof Deno.build.os, readonly string[]>>>>> =
  {
    "Open MPI": { linux: ["libmpi.so.40"], darwin: ["libmpi.40.dylib"] },
    MPICH: { linux: ["libmpich.so.12", "libmpi.so.12"], darwin: ["libmpi.12.dylib"] },
  };

/** MPI_MAX_LIBRARY_VERSION_STRING of MPICH, the longer one. */
const VERSION_BYTES = 8192;

/** Present in Open MPI alone. */
const OPEN_MPI_SYMBOL = "ompi_mpi_comm_world";

/**
 * Opens the library that fits the launcher.
 *
 * @param launch how this process was started
 * @param path file or name of the library; by default the usual names are tried
 * @returns the library; MPI is not initialised yet
 * @throws {MpiUnavailableError} when there is none, or it is not of the launcher's family
 */
export function openLibrary(launch: Launch, path?: string): MpiLibrary {
  const families: MpiFamily[] = launch.family ? [launch.family] : ["Open MPI", "MPICH"];
  const names = path === undefined
    ? families.flatMap((family) => FILES[family][Deno.build.os] ?? [])
    : [path];
  const name = names.find(canOpen);
  if (name === undefined) {
    throw new MpiUnavailableError(
      `Cannot join the ${launch.ranks} ranks that ${launch.variable} tells of: expected the library of ` +
        `${families.join(" or ")}, found none called ${
          names.join(" or ")
        }; KEEL_MPI_LIBRARY names another file`,
    );
  }
  const { family, version } = identify(name);
  if (!families.includes(family)) {
    throw new MpiUnavailableError(
      `Cannot join the ${launch.ranks} ranks that ${launch.variable} tells of: expected the library of ` +
        `${launch.family}, whose launcher started them, found ${version} in ${name}`,
    );
  }
  return family === "Open MPI" ? openOpenMpi(name, version) : openMpich(name, version);
}

function canOpen(name: string): boolean {
  try {
    Deno.dlopen(name, { MPI_Initialized: { parameters: ["buffer"], result: "i32" } }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

function identify(name: string): { family: MpiFamily; version: string } {
  const { symbols } = Deno.dlopen(name, {
    [OPEN_MPI_SYMBOL]: { type: "pointer", optional: true },
    MPI_Get_library_version: { parameters: ["buffer", "buffer"], result: "i32" },
  });
  const text = new Uint8Array(VERSION_BYTES);
  const length = new Int32Array(1);
  symbols.MPI_Get_library_version(text, length);
  // "Open MPI v4.1.4, package: ...", or "MPICH Version:\t4.0.2\nMPICH Release date: ...".
  const version = new TextDecoder().decode(text.subarray(0, length[0])).split(/[,\n]/)[0].replace(
    /:?\s+/g,
    " ",
  );
  return { family: symbols[OPEN_MPI_SYMBOL] === null ? "MPICH" : "Open MPI", version };
}

/** C prototypes; what waits for other ranks runs on a thread of its own, so that time-outs and the device go on. */
function prototypes(handle: "pointer" | "i32") {
  // One type for both: handles are only passed on.
  const h = handle as "pointer";
  return {
    MPI_Init_thread: { parameters: ["pointer", "pointer", "i32", "buffer"], result: "i32" },
    MPI_Finalize: { parameters: [], result: "i32" },
    MPI_Abort: { parameters: [h, "i32"], result: "i32" },
    MPI_Comm_rank: { parameters: [h, "buffer"], result: "i32" },
    MPI_Comm_size: { parameters: [h, "buffer"], result: "i32" },
    MPI_Comm_set_errhandler: { parameters: [h, h], result: "i32" },
    MPI_Error_string: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    MPI_Barrier: { parameters: [h], result: "i32", nonblocking: true },
    MPI_Allreduce: {
      parameters: ["pointer", "buffer", "i32", h, h, h],
      result: "i32",
      nonblocking: true,
    },
    MPI_Bcast: { parameters: ["buffer", "i32", h, "i32", h], result: "i32", nonblocking: true },
    MPI_Allgatherv: {
      parameters: ["buffer", "i32", h, "buffer", "buffer", "buffer", h, h],
      result: "i32",
      nonblocking: true,
    },
  } as const;
}

/** Open MPI's handles are the addresses of its objects. */
function openOpenMpi(name: string, version: string): MpiLibrary {
  const { symbols: functions } = Deno.dlopen(name, prototypes("pointer"));
  const address = { type: "pointer" } as const;
  const { symbols: at } = Deno.dlopen(name, {
    ...{ ompi_mpi_comm_world: address, ompi_mpi_errors_return: address, ompi_mpi_float: address },
    ...{ ompi_mpi_double: address, ompi_mpi_int32_t: address, ompi_mpi_uint64_t: address },
    ...{ ompi_mpi_byte: address, ompi_mpi_op_sum: address, ompi_mpi_op_min: address },
    ompi_mpi_op_max: address,
  });
  return {
    ...{ family: "Open MPI", version, functions },
    ...{ world: at.ompi_mpi_comm_world, errorsReturn: at.ompi_mpi_errors_return },
    inPlace: Deno.UnsafePointer.create(1n),
    datatypes: {
      ...{ f32: at.ompi_mpi_float, f64: at.ompi_mpi_double, byte: at.ompi_mpi_byte },
      ...{ i32: at.ompi_mpi_int32_t, u64: at.ompi_mpi_uint64_t },
    },
    ops: { sum: at.ompi_mpi_op_sum, min: at.ompi_mpi_op_min, max: at.ompi_mpi_op_max },
  };
}

/** MPICH's handles are numbers in its mpi.h, the same in every library of its binary interface since 2013. */
function openMpich(name: string, version: string): MpiLibrary {
  const { symbols: functions } = Deno.dlopen(name, prototypes("i32"));
  const handle = (value: number) => value as unknown as Handle;
  return {
    ...{ family: "MPICH", version, functions, world: handle(0x44000000), errorsReturn: handle(0x54000001) },
    inPlace: Deno.UnsafePointer.create(2n ** 64n - 1n),
    datatypes: {
      ...{ f32: handle(0x4c00040a), f64: handle(0x4c00080b), byte: handle(0x4c00010d) },
      ...{ i32: handle(0x4c000439), u64: handle(0x4c00083e) },
    },
    ops: { sum: handle(0x58000003), min: handle(0x58000002), max: handle(0x58000001) },
  };
}
