import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import { loadNative } from '../../lib/native.ts'
import type { ModelConfig } from '../../lib/policy/model-config.ts'
import { Policy } from '../../lib/policy/policy.ts'

const config: ModelConfig = {
  architecture: 'LlamaForCausalLM',
  hiddenSize: 32,
  intermediateSize: 48,
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 16,
  vocabSize: 50,
  maxPositions: 64,
  rmsNormEps: 1e-5,
  rope: { theta: 10_000, scaling: null },
  ...{ qkvBias: false, outputBias: false, mlpBias: false, qkNorm: false, tieWordEmbeddings: true },
  eosTokenIds: [2],
  initializerRange: 0.05,
}
let folder: string
let policyFolder: string
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-cli-export-'))
  policyFolder = path.join(folder, 'policy')
  const policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', threads: 1 })
  await policy.save(policyFolder, { dtype: 'f32' })
  await policy.dispose()
})
test.after.always(() => rm(folder, { recursive: true }))

const ssrl = (...args: string[]) =>
  execa('node', ['--import=tsx', 'lib/cli/main.ts', 'export', '--policy', policyFolder, ...args], {
    reject: false,
    env: { NO_COLOR: '1' },
  })

test('an output that ends in .gguf becomes a GGUF file; rows that q8_0 cannot have are told', async (t) => {
  const output = path.join(folder, 'policy.gguf')
  const { exitCode, stdout, stderr } = await ssrl('--output', output, '--dtype', 'q8_0')
  t.is(exitCode, 0, stderr)
  t.true(stdout.startsWith(`${output} (`))
  t.regex(stderr, /1 matrix/)
  const { format, tensors } = await loadNative().readTensorFile(output)
  t.is(format, 'gguf')
  t.is(tensors.find(({ name }) => name === 'blk.0.ffn_down.weight')!.dtype, 'F16')
  t.is(tensors.find(({ name }) => name === 'blk.0.ffn_up.weight')!.dtype, 'Q8_0')
})

test('another output becomes a folder in Hugging Face layout, bf16 unless told otherwise', async (t) => {
  const output = path.join(folder, 'layout')
  const { exitCode, stdout } = await ssrl('--output', output, '--json')
  t.is(exitCode, 0)
  t.like(JSON.parse(stdout), { format: 'safetensors', dtype: 'bf16', path: output, types: { BF16: 11 } })
  t.deepEqual((await readdir(output)).sort(), ['config.json', 'generation_config.json', 'model.safetensors'])
  const { tensors } = await loadNative().readTensorFile(path.join(output, 'model.safetensors'))
  t.true(tensors.every(({ dtype }) => dtype === 'BF16'))
})

test('--format gguf into a folder makes model.gguf there', async (t) => {
  const output = path.join(folder, 'gguf-folder')
  const { exitCode } = await ssrl('--output', output, '--format', 'gguf', '--dtype', 'f32')
  t.is(exitCode, 0)
  t.deepEqual(await readdir(output), ['model.gguf'])
})

test('q8_0 in Hugging Face layout, and an unknown dtype, are wrong usage: exit code 2', async (t) => {
  const q8 = await ssrl('--output', path.join(folder, 'x'), '--dtype', 'q8_0')
  t.is(q8.exitCode, 2)
  t.regex(q8.stderr, /ERR_INVALID_ARG.*gguf/)
  t.is((await ssrl('--output', path.join(folder, 'x'), '--dtype', 'q4_0')).exitCode, 2)
})

test('a policy that is not there is exit code 1 with its path', async (t) => {
  const { exitCode, stderr } = await ssrl(
    '--policy',
    path.join(folder, 'nothing'),
    '--output',
    path.join(folder, 'y'),
  )
  t.is(exitCode, 1)
  t.regex(stderr, /ERR_IO.*nothing/)
})
