import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { SsrlError } from '../errors.ts'

/** From lib/cli and from dist/cli alike. */
const root = new URL('../../', import.meta.url)
const inRepository = (name: string) => fileURLToPath(new URL(name, root))

/** `ssrl bench`: the repository's benchmarks; the package is installed without them. */
export function benchCommand(): Command {
  return new Command('bench')
    .description('measure this library, and other programs at the same work')
    .argument('[arguments...]', 'names of cases, and options of the benchmarks')
    .allowUnknownOption()
    .addHelpText('after', '\nCases and options of the benchmarks: ssrl bench -- --help')
    .action((args: string[]) => bench(args))
}

async function bench(args: string[]): Promise<void> {
  const main = inRepository('bench/main.ts')
  const tsx = inRepository('node_modules/tsx/dist/loader.mjs')
  if (!existsSync(main) || !existsSync(tsx)) {
    throw new SsrlError(
      'ERR_IO',
      'The benchmarks come with the repository, not with the installed package: clone it, run `npm run setup`, ' +
        'and there `npm run bench -- --help`',
    )
  }
  const child = spawn(process.execPath, [`--import=${tsx}`, main, ...args], { stdio: 'inherit' })
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => resolve(code ?? 1))
  })
}
