import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'

const bench = (main: string, ...args: string[]) =>
  execa('node', ['--import=tsx', main, 'bench', ...args], { reject: false, env: { NO_COLOR: '1' } })

test('hands names and options to the benchmarks, and their exit code back', async (t) => {
  const help = await bench('lib/cli/main.ts', '--', '--help')
  t.is(help.exitCode, 0)
  t.regex(help.stdout, /^npm run bench/)
  const wrong = await bench('lib/cli/main.ts', 'generat', '--threads', '2')
  t.is(wrong.exitCode, 2)
  t.regex(wrong.stderr, /Expected a case \(load, .* but received generat$/)
})

test('says where the benchmarks are when the package was installed without them', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-bench-'))
  await cp('lib', path.join(folder, 'lib'), { recursive: true })
  await cp('package.json', path.join(folder, 'package.json'))
  await symlink(path.resolve('node_modules'), path.join(folder, 'node_modules'))
  const result = await bench(path.join(folder, 'lib/cli/main.ts'), 'generate')
  t.is(result.exitCode, 1)
  t.regex(result.stderr, /ERR_IO: The benchmarks come with the repository.*clone it.*npm run bench/s)
  await rm(folder, { recursive: true })
})
