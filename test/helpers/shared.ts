import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test, { type ImplementationFn } from 'ava'

const root = fileURLToPath(new URL('../../../shared', import.meta.url))
export const hasShared = existsSync(root)

/** A path inside `../shared`, the folder of fixtures beside the repository. */
export function sharedPath(...parts: string[]): string {
  return [root, ...parts].join('/')
}

/** `test`, or `test.skip` with the reason in the title where `../shared` is missing. */
export const testWithShared: (title: string, implementation: ImplementationFn<[]>) => void = hasShared
  ? (title, implementation) => test(title, implementation)
  : (title, implementation) => test.skip(`${title} (skipped: ../shared is missing)`, implementation)
