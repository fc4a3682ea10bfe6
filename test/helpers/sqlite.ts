import test, { type ImplementationFn } from 'ava'

const isThere = await import('better-sqlite3').then(
  ({ default: Sqlite }) => {
    new Sqlite(':memory:').close()
    return true
  },
  () => false,
)

/** `test`, or `test.skip` where the optional better-sqlite3 is missing or was not built. */
export const testWithSqlite: (title: string, implementation: ImplementationFn<[]>) => void = isThere
  ? (title, implementation) => test(title, implementation)
  : (title, implementation) => test.skip(`${title} (skipped: better-sqlite3 is missing)`, implementation)
