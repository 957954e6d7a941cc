/**
 * What a command does to the machine: from it and the flags follow the permissions that its process gets.
 * @module
 */

/** What is done to the place that a flag names. */
export type PathUse =
  /** A model or adapter is read: a folder, or a name on the hub. What an adapter there calls its base is read, too. */
  | "model"
  /** The base of the adapter that `model` names is read. */
  | "base"
  /** Files joined by commas are read. */
  | "files"
  /** A file is read. */
  | "file"
  /** A folder is read. */
  | "folder"
  /** A folder is written, and read again. */
  | "newFolder"
  /** A folder is read, and another takes its place, whole or not at all. */
  | "replacedFolder"
  /** A file is written, whole or not at all. */
  | "newFile"
  /** A `.md` file is written, and the folder of that name with its figures. */
  | "newDocument";

/** Folders of Keel's cache that are read and written. */
export type CacheName = "tuning" | "reference-logps";

/** Settings by their dotted names, nested as the schema has them. */
export type SettingValues = Readonly<Record<string, unknown>>;

/** What a command does to the machine. */
export interface Access {
  /** Every flag that names a place. */
  readonly paths: Readonly<Record<string, PathUse>>;
  /** What words without a flag name, where the command takes any. */
  readonly words?: PathUse;
  /** Whether these settings need an adapter. */
  readonly usesGpu: (settings: SettingValues) => boolean;
  /** Whether these settings leave everything as it is, whatever the flags name. */
  readonly isReadOnly?: (settings: SettingValues) => boolean;
  /** Where these settings make it listen, as `--allow-net` takes it: with a thread of its own, which loads Keel's modules. */
  readonly listensAt?: (settings: SettingValues) => string | undefined;
  /** What is kept from run to run, where an adapter is used. */
  readonly caches: readonly CacheName[];
  /** What of the system is asked for then, besides the adapter's needs: names that `--allow-sys` takes. */
  readonly sys?: readonly string[];
}
