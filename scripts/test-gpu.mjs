// `npm run test:gpu`: the tests of the kernels, and those of whole models, on the first CUDA device. Where there is none it
// says what is missing and exits 0.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const ask = `
import { loadNative } from './lib/native.ts'
import { firstUsable } from './lib/policy/device.ts'
const cuda = loadNative().cuda()
const missing = cuda.missing ?? (firstUsable(cuda) === null ? cuda.devices[0].missing : null)
console.log(JSON.stringify({ missing, device: cuda.devices[0]?.name }))
`
const tests = [
  'attention',
  'cuda-policy',
  'cuda-learner',
  'cuda-losses',
  'gpu',
  'matmul',
  'optimizer',
  'policy-loss',
  'row-wise',
  'sampling',
].map((name) => `test/native/${name}.test.ts`)

const answer = spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', ask], {
  encoding: 'utf8',
})
if (answer.status !== 0) {
  console.error(answer.stderr)
  process.exit(1)
}
const { missing, device } = JSON.parse(answer.stdout)
if (missing !== null) {
  console.log(`skipped: ${missing}`)
} else {
  console.log(`on ${device}`)
  const files = [...tests.filter((file) => existsSync(file)), ...process.argv.slice(2)]
  const run = spawnSync('node_modules/.bin/ava', ['--serial', '--concurrency=1', ...files], {
    stdio: 'inherit',
    env: { ...process.env, SSRL_GPU: '1' },
  })
  process.exitCode = run.status ?? 1
}
