import { open, rename, rm, stat, utimes } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { SsrlError } from '../errors.ts'

const beatMilliseconds = 2000
const staleMilliseconds = 10_000
const pollMilliseconds = 100

/**
 * Runs while holding a lock file, so that two processes (or two calls) never write the same download at once. A holder
 * keeps the file's time fresh; one that died is recognised by its age and taken over.
 */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  run: () => Promise<T>,
): Promise<T> {
  while (!(await acquire(path))) {
    await sleep(pollMilliseconds, undefined, { signal }).catch(() => signal?.throwIfAborted())
  }
  const touch = () => {
    const now = new Date()
    utimes(path, now, now).catch(() => {})
  }
  const beat = setInterval(touch, beatMilliseconds)
  try {
    return await run()
  } finally {
    clearInterval(beat)
    await rm(path, { force: true })
  }
}

async function acquire(path: string): Promise<boolean> {
  try {
    const handle = await open(path, 'wx')
    await handle.close()
    return true
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw new SsrlError('ERR_IO', `Can't write ${path}: ${(cause as Error).message}`, { cause })
    }
  }
  const found = await stat(path).catch(() => null)
  if (found && Date.now() - found.mtimeMs > staleMilliseconds) {
    // by renaming, only one of several that wait removes it
    const aside = `${path}.${process.pid}.stale`
    await rename(path, aside).then(
      () => rm(aside, { force: true }),
      () => {},
    )
  }
  return false
}
