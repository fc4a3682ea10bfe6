import type Database from 'better-sqlite3'
import { SsrlError } from '../errors.ts'

export type { Database }

/**
 * Opens a database by better-sqlite3, an optional dependency that is loaded here and nowhere else.
 * @throws SsrlError `ERR_SEARCH` where it is missing, or the file can't be opened
 */
export async function openDatabase(
  file: string,
  options: { readonly?: boolean; fileMustExist?: boolean } = {},
): Promise<Database.Database> {
  let Sqlite: typeof Database
  try {
    Sqlite = (await import('better-sqlite3')).default
  } catch (cause) {
    throw missing(cause)
  }
  try {
    return new Sqlite(file, options)
  } catch (cause) {
    // The package may be there without its compiled part, which it loads at the first use.
    if (/bindings|NODE_MODULE_VERSION|\.node/.test((cause as Error).message)) throw missing(cause)
    throw new SsrlError('ERR_SEARCH', `Can't open ${file}: ${(cause as Error).message}`, { cause })
  }
}

function missing(cause: unknown): SsrlError {
  return new SsrlError(
    'ERR_SEARCH',
    'A local index and a search cache need better-sqlite3 12, which is not there or was not built: npm install better-sqlite3@12',
    { cause },
  )
}
