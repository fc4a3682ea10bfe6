import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execaNode } from 'execa'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

let folder: string
let parameters: number
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-inspect-cli-'))
  const policy = await tinyPolicy()
  const count = (shape: number[]) => shape.reduce((product, size) => product * size, 1)
  parameters = policy.parameters().reduce((sum, { shape }) => sum + count(shape), 0)
  await policy.save(path.join(folder, 'run', 'policy'), { stopStrings: ['</answer>'], dtype: 'f32' })
  await mkdir(path.join(folder, 'run', 'checkpoints', 'step-000002'), { recursive: true })
  await writeFile(path.join(folder, 'run', 'config.json'), JSON.stringify({ maxSteps: 4 }))
  const records = [1, 2].map((step) =>
    JSON.stringify({ step, reward: { mean: step / 4 }, format: { mean: 1 } }),
  )
  await writeFile(path.join(folder, 'run', 'steps.jsonl'), records.map((line) => `${line}\n`).join(''))
  await policy.dispose()
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

function ssrl(...args: string[]) {
  return execaNode('lib/cli/main.ts', ['inspect', ...args], { nodeOptions: ['--import=tsx'], reject: false })
}

test('inspect says what a policy is, its sizes, and what it needs', async (t) => {
  const { stdout, stderr, exitCode } = await ssrl(path.join(folder, 'run', 'policy'))
  t.is(exitCode, 0, stderr)
  t.regex(stdout, /^model +LlamaForCausalLM/m)
  t.regex(stdout, /^context +256 tokens/m)
  t.regex(stdout, /^ends at .*'<\/answer>'/m)
  t.regex(stdout, /^computes +in (bf16|f32) on cpu/m)
  t.regex(stdout, /^needs +[\d.]+ [KM]iB to generate/m)
})

test('inspect --json counts the parameters and names the files', async (t) => {
  const { stdout } = await ssrl(path.join(folder, 'run', 'policy'), '--json')
  const report = JSON.parse(stdout)
  t.is(report.kind, 'policy')
  t.is(report.parameters, parameters)
  t.is(report.files[0].name, 'model.safetensors')
  t.true(report.files[0].bytes > 4 * parameters)
  t.deepEqual(Object.keys(report.tensorTypes), ['F32'])
  t.true(report.memory.training.f32 > report.memory.weights.f32)
})

test('inspect of a run folder says how far it is, and describes its policy', async (t) => {
  const { stdout, exitCode } = await ssrl(path.join(folder, 'run'))
  t.is(exitCode, 0)
  t.regex(stdout, /^steps +2 of 4$/m)
  t.regex(stdout, /^last step +reward 0\.500, format 1\.000$/m)
  t.regex(stdout, /^checkpoints +step-000002$/m)
  t.regex(stdout, /^model +LlamaForCausalLM/m)
  const json = JSON.parse((await ssrl(path.join(folder, 'run'), '--json')).stdout)
  t.is(json.kind, 'run')
  t.is(json.policy.kind, 'policy')
})

test('inspect of what is no policy exits with 1 and says what was expected', async (t) => {
  const { stderr, exitCode } = await ssrl(folder)
  t.is(exitCode, 1)
  t.regex(stderr, /ERR_MODEL_FORMAT: .* holds no weights/)
})
