// What the compiler is not told by its libraries.

/** The build reads these as texts. */
declare module '*.sql' {
  const text: string;
  export default text;
}

/** Of this package; the build has it. */
declare const VERSION: string;

/** In workers alone. */
interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{ close(): void }>;
}
