// What the compiler is not told by its libraries.

/** The build reads these as texts. */
declare module '*.sql' {
  const text: string;
  export default text;
}

/** In workers alone. */
interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{ close(): void }>;
}
