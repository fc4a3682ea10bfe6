import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import { loadNative } from '../lib/native.ts'

test('the addon loads, and twice gives the same object', (t) => {
  t.is(loadNative(), loadNative())
})

test('the addon loads in a worker thread, and the worker can end', async (t) => {
  const script = `
    import { Worker } from 'node:worker_threads'
    import { loadNative } from './lib/native.ts'
    loadNative()
    const code = "import { createRequire } from 'node:module';" +
      "createRequire(process.cwd() + '/')('bindings')({ bindings: 'ssrl.node', module_root: process.cwd() })"
    const worker = new Worker(code, { eval: true })
    worker.on('exit', (status) => console.log('worker ended with', status))`
  const { stdout } = await execa('node', ['--import=tsx', '--input-type=module', '-e', script])
  t.is(stdout, 'worker ended with 0')
})

test('without the addon loading is ERR_NATIVE_LOAD with the command that builds it', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-native-'))
  t.teardown(() => rm(folder, { recursive: true }))
  await cp('lib', path.join(folder, 'lib'), { recursive: true })
  await cp('package.json', path.join(folder, 'package.json'))
  await symlink(path.resolve('node_modules'), path.join(folder, 'node_modules'))
  const script = `
    import { loadNative } from './lib/native.ts'
    try { loadNative() } catch (error) { console.log(error.code, error.message) }`
  const { stdout } = await execa('node', ['--import=tsx', '--input-type=module', '-e', script], {
    cwd: folder,
  })
  t.regex(stdout, /^ERR_NATIVE_LOAD The native addon can't be loaded: .* bash scripts\/setup\.sh$/)
})

test('SSRL_CPU keeps the process to older instructions, and a name that it does not know is an error', async (t) => {
  const script = `
    import { loadNative } from './lib/native.ts'
    try {
      const { bf16, highwayTarget } = loadNative().environment()
      console.log(bf16, highwayTarget)
    } catch (error) { console.log(error.code, error.message) }`
  const run = async (SSRL_CPU: string) =>
    (await execa('node', ['--import=tsx', '--input-type=module', '-e', script], { env: { SSRL_CPU } })).stdout
  t.regex(await run('sse2'), /^ERR_INVALID_ARG Expected SSRL_CPU to be avx2, avx512 or amx .*received 'sse2'/)
  if (process.arch === 'x64') t.regex(await run('avx2'), /^false (AVX2|SSE4|SSSE3|SSE2)$/)
})
