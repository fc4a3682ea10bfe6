import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestFn } from 'ava'

/** A folder that goes with the test file; `write` puts rows (objects as JSON, texts and bytes as they are) into a file of it. */
export function temporaryFolder(test: TestFn) {
  let folder = ''
  test.before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ssrl-data-'))
  })
  test.after.always(() => rm(folder, { recursive: true }))
  const path = (name: string) => join(folder, name)
  const write = async (name: string, rows: unknown[] | Uint8Array) => {
    const lines = rows instanceof Uint8Array ? rows : rows.map(asLine).join('\n')
    await writeFile(path(name), lines)
    return path(name)
  }
  return { path, write }
}

function asLine(row: unknown): string {
  return typeof row === 'string' ? row : JSON.stringify(row)
}
