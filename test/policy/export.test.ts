import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { loadNative } from '../../lib/native.ts'
import { exportGguf, type GgufDtype, ggufTensors } from '../../lib/policy/export.ts'
import type { ModelConfig } from '../../lib/policy/model-config.ts'
import { Policy } from '../../lib/policy/policy.ts'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

/** Every parameter that a family can have, sizes that are no multiple of 32 but for one. */
const config: ModelConfig = {
  architecture: 'LlamaForCausalLM',
  hiddenSize: 36,
  intermediateSize: 64,
  numLayers: 2,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 10,
  vocabSize: 259,
  maxPositions: 128,
  rmsNormEps: 1e-5,
  rope: { theta: 10_000, scaling: null },
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  qkNorm: false,
  tieWordEmbeddings: false,
  bosTokenId: 1,
  eosTokenIds: [2],
  initializerRange: 0.05,
}
const families: Record<string, ModelConfig> = {
  llama: config,
  'llama with Llama 3 rope scaling': {
    ...config,
    tieWordEmbeddings: true,
    rope: {
      theta: 500_000,
      scaling: { type: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 256 },
    },
  },
  qwen2: { ...config, architecture: 'Qwen2ForCausalLM', outputBias: false, mlpBias: false },
  qwen3: {
    ...config,
    architecture: 'Qwen3ForCausalLM',
    ...{ qkvBias: false, outputBias: false, mlpBias: false, qkNorm: true },
  },
}

const byteTokens = ['<unk>', '<s>', '</s>', ...Array.from({ length: 256 }, (_, byte) => byteCharacter(byte))]
function byteCharacter(byte: number): string {
  const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  if (printable) return String.fromCharCode(byte)
  const others = Array.from({ length: 256 }, (_, b) => b).filter(
    (b) => !((b > 32 && b < 127) || (b > 160 && b !== 173)),
  )
  return String.fromCharCode(256 + others.indexOf(byte))
}
const tokenizer = Tokenizer.fromGguf({
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': 'smollm',
  'tokenizer.ggml.tokens': byteTokens,
  'tokenizer.ggml.token_type': byteTokens.map((_, id) => (id < 3 ? 3 : 1)),
  'tokenizer.ggml.merges': [],
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.chat_template': '{{ messages[0].content }}',
})!

async function setUp(t: ExecutionContext, of: ModelConfig = config, seed = 7) {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-export-'))
  const policy = await Policy.initialize(of, { seed, tokenizer, dtype: 'f32', threads: 1 })
  t.teardown(async () => {
    await policy.dispose()
    await rm(folder, { recursive: true })
  })
  // Biases and norms start as constants, which could not show that they are mixed up.
  for (const { name, shape } of policy.parameters()) {
    if (shape.length > 1) continue
    const values = Float32Array.from({ length: shape[0]! }, (_, i) => 1 + 0.3 * Math.sin(i + name.length))
    await policy.writeParameter(name, values)
  }
  return { policy, file: path.join(folder, 'out', 'policy.gguf'), folder }
}

const tokens = Int32Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 259)

for (const [name, family] of Object.entries(families)) {
  test(`an f32 GGUF of ${name} gives back the policy: every weight, the config, the logits`, async (t) => {
    const { policy, file } = await setUp(t, family)
    await exportGguf(policy, file, { dtype: 'f32' })
    const reread = await Policy.load(file, { dtype: 'f32', threads: 1 })
    t.teardown(() => reread.dispose())
    const { rope, ...rest } = family
    t.like(reread.config, { ...rest, initializerRange: 0.02 })
    t.like(reread.config.rope, rope)
    for (const { name: parameter } of policy.parameters()) {
      t.deepEqual(await reread.readParameter(parameter), await policy.readParameter(parameter), parameter)
    }
    t.deepEqual(await reread.logits(tokens), await policy.logits(tokens))
  })
}

test('tokenizer, end tokens and chat template come back from the file alone', async (t) => {
  const { policy, file } = await setUp(t)
  await exportGguf(policy, file, { dtype: 'f32' })
  const reread = await Policy.load(file, { threads: 1 })
  t.teardown(() => reread.dispose())
  const text = 'Größe: 12 <s>\n'
  t.deepEqual(reread.tokenizer!.encode(text), policy.tokenizer!.encode(text))
  t.is(reread.tokenizer!.chatTemplate, '{{ messages[0].content }}')
  t.deepEqual(reread.endTokenIds, [2])
})

/** Largest error of a type, relative to the largest value of the row's block of 32 (F16 and BF16: of the value). */
const precision: Record<GgufDtype, number> = {
  f32: 0,
  f16: 2 ** -11,
  bf16: 2 ** -8,
  q8_0: 0.5 / 127 + 2 ** -11,
}
for (const dtype of ['f16', 'bf16', 'q8_0'] as const) {
  test(`a ${dtype} GGUF has matrices within its precision, and vectors exact`, async (t) => {
    const { policy, file } = await setUp(t)
    const { types } = await exportGguf(policy, file, { dtype })
    const reread = await Policy.load(file, { dtype: 'f32', threads: 1 })
    t.teardown(() => reread.dispose())
    for (const { name, shape } of policy.parameters()) {
      const before = await policy.readParameter(name)
      const after = await reread.readParameter(name)
      const largest = before.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const bound = shape.length === 1 ? 0 : largest * precision[dtype]
      const error = before.reduce((most, value, i) => Math.max(most, Math.abs(value - after[i]!)), 0)
      t.true(error <= bound, `${name}: ${error} > ${bound}`)
      if (shape.length > 1) t.true(error > 0, `${name} was not converted`)
    }
    // Of the matrices only down_proj, [36, 64], has rows of a multiple of 32.
    const vectors = 2 * 9 + 1
    const expected =
      dtype === 'q8_0'
        ? { F32: vectors, F16: 2 * 6 + 2, Q8_0: 2 }
        : { F32: vectors, [dtype.toUpperCase()]: 16 }
    t.deepEqual(types, expected)
  })
}

test('q and k rows of Llama are in the order of interleaved rope, and those of Qwen are not', async (t) => {
  for (const [family, isPermuted] of [
    ['llama', true],
    ['qwen2', false],
  ] as const) {
    const { policy, file } = await setUp(t, families[family]!)
    await exportGguf(policy, file, { dtype: 'f32' })
    const read = (name: string) => loadNative().readTensor(file, name) as Promise<Float32Array>
    for (const [letter, heads] of [
      ['q', 6],
      ['k', 2],
    ] as const) {
      const ours = await policy.readParameter(`model.layers.1.self_attn.${letter}_proj.bias`)
      const theirs = await read(`blk.1.attn_${letter}.bias`)
      t.is(ours.length, heads * 10)
      const expected = ours.map((_, row) => {
        const [head, inside] = [Math.floor(row / 10), row % 10]
        return ours[isPermuted ? head * 10 + (inside % 2) * 5 + Math.floor(inside / 2) : row]!
      })
      t.deepEqual(theirs, expected, `${family} ${letter}`)
    }
  }
})

test('a policy without a tokenizer is exported and read again without one', async (t) => {
  const { file } = await setUp(t)
  const policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', threads: 1 })
  t.teardown(() => policy.dispose())
  await exportGguf(policy, file)
  const reread = await Policy.load(file, { threads: 1 })
  t.teardown(() => reread.dispose())
  t.is(reread.tokenizer, null)
})

test('without a dtype the file has the type that the policy computes in', async (t) => {
  const { policy, file } = await setUp(t)
  t.deepEqual(Object.keys((await exportGguf(policy, file)).types), ['F32'])
})

test('weights that F16 cannot hold are ERR_INVALID_ARG, and the file that was there stays', async (t) => {
  const { policy, file, folder } = await setUp(t)
  const { path: written } = await exportGguf(policy, file, { dtype: 'f32' })
  const before = await readFile(written)
  const name = 'lm_head.weight'
  const values = await policy.readParameter(name)
  values[5] = 1e6
  await policy.writeParameter(name, values)
  await t.throwsAsync(exportGguf(policy, file, { dtype: 'f16' }), {
    instanceOf: SsrlError,
    code: 'ERR_INVALID_ARG',
    message: /output\.weight.*F16/,
  })
  t.deepEqual(await readFile(written), before)
  t.deepEqual(await readdir(path.join(folder, 'out')), ['policy.gguf'])
})

test('an unknown dtype and a wrong policy are ERR_INVALID_ARG, a disposed one ERR_DISPOSED', async (t) => {
  const { policy, file } = await setUp(t)
  const code = 'ERR_INVALID_ARG'
  await t.throwsAsync(exportGguf(policy, file, { dtype: 'q4_0' as GgufDtype }), { code })
  await t.throwsAsync(exportGguf({} as Policy, file), { code })
  await policy.dispose()
  await t.throwsAsync(exportGguf(policy, file), { code: 'ERR_DISPOSED' })
})

test('an abort rejects with its reason and leaves no file', async (t) => {
  const { policy, file, folder } = await setUp(t)
  const reason = new Error('enough')
  await t.throwsAsync(exportGguf(policy, file, { signal: AbortSignal.abort(reason) }), { is: reason })
  const controller = new AbortController()
  const running = exportGguf(policy, file, { signal: controller.signal })
  controller.abort(reason)
  await t.throwsAsync(running, { is: reason })
  t.deepEqual(await readdir(path.join(folder, 'out')).catch(() => []), [])
})

test('a path that cannot be written is ERR_IO', async (t) => {
  const { policy, folder } = await setUp(t)
  await writeFile(path.join(folder, 'plain'), '')
  await t.throwsAsync(exportGguf(policy, path.join(folder, 'plain', 'x.gguf')), { code: 'ERR_IO' })
})

test('rope scaling of a Qwen model, which GGUF readers ignore, is ERR_MODEL_FORMAT', (t) => {
  const { rope } = families['llama with Llama 3 rope scaling']!
  t.throws(() => ggufTensors({ ...families.qwen2!, rope }, 'f32'), {
    instanceOf: SsrlError,
    code: 'ERR_MODEL_FORMAT',
    message: /Qwen2ForCausalLM/,
  })
})

testWithShared('a real model keeps its log-probs and tokenizer through an f32 GGUF', async (t) => {
  const { file } = await setUp(t)
  const source = sharedPath('models', 'smollm2-135m-instruct', 'model-q4_1.gguf')
  const policy = await Policy.load(source, { dtype: 'f32', threads: 2 })
  t.teardown(() => policy.dispose())
  await exportGguf(policy, file, { dtype: 'f32' })
  const reread = await Policy.load(file, { dtype: 'f32', threads: 2 })
  t.teardown(() => reread.dispose())
  const text = 'What is the capital of France?\n\n  Paris, since 987.'
  const ids = policy.tokenizer!.encode(text)
  t.deepEqual(reread.tokenizer!.encode(text), ids)
  t.is(reread.tokenizer!.chatTemplate, policy.tokenizer!.chatTemplate)
  t.deepEqual(reread.config, policy.config)
  t.deepEqual(await reread.score([Int32Array.from(ids)]), await policy.score([Int32Array.from(ids)]))
})
