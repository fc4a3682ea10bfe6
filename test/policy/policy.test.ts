import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { execa } from 'execa'
import { Policy } from '../../lib/index.ts'
import { bytePolicy, byteTokenizer, someTokens } from '../helpers/byte-policy.ts'
import { fixtureNames, largestDifference, Reference } from '../helpers/reference.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const prompt = someTokens(30, 3, 256)

async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-policy-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function load(t: ExecutionContext, source: string, options: Parameters<typeof Policy.load>[1] = {}) {
  const policy = await Policy.load(source, { threads: 2, ...options })
  t.teardown(() => policy.dispose())
  return policy
}

const parametersOf = async (policy: Policy) =>
  Promise.all(policy.parameters().map(async ({ name }) => [name, await policy.readParameter(name)] as const))

for (const name of fixtureNames) {
  testWithShared(`${name}: logits and scores of a loaded folder are the reference's`, async (t) => {
    const reference = new Reference(name)
    const policy = await load(t, reference.folder, { dtype: 'f32' })
    const [sequence] = reference.sequences
    const expected = reference.row('logits', 0, sequence!.length * policy.config.vocabSize)
    t.true(largestDifference(await policy.logits(sequence!), expected) < 1e-4)
    const scores = await policy.score(reference.sequences)
    reference.perToken('logprobs').forEach((values, i) => {
      t.true(largestDifference(scores[i]!.logProbs, values) < 1e-4)
    })
  })

  testWithShared(`${name}: saving and loading gives the same f32 weights, in one file or many`, async (t) => {
    const policy = await load(t, new Reference(name).folder, { dtype: 'f32' })
    const folder = await temporaryFolder(t)
    await policy.save(path.join(folder, 'one'))
    await policy.save(path.join(folder, 'many'), { shardBytes: 60_000 })
    t.deepEqual((await readdir(path.join(folder, 'one'))).sort(), [
      'config.json',
      'generation_config.json',
      'model.safetensors',
    ])
    const files = await readdir(path.join(folder, 'many'))
    t.true(files.includes('model.safetensors.index.json'))
    t.true(files.filter((file) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(file)).length > 1)
    for (const copy of ['one', 'many']) {
      const again = await load(t, path.join(folder, copy), { dtype: 'f32' })
      t.deepEqual(await parametersOf(again), await parametersOf(policy))
      t.deepEqual(await again.score([prompt]), await policy.score([prompt]))
    }
  })
}

testWithShared(
  'SmolLM2 is loaded from its folder and from the GGUF alone, with tokenizer and template',
  async (t) => {
    const folder = sharedPath('models', 'smollm2-135m-instruct')
    const policy = await load(t, folder)
    t.is(policy.tokenizer!.hasChatTemplate, true)
    t.deepEqual(policy.endTokenIds, [2])
    const alone = await temporaryFolder(t)
    const gguf = path.join(alone, 'model.gguf')
    await writeFile(gguf, await readFile(path.join(folder, 'model-q4_1.gguf')))
    const other = await load(t, gguf)
    const messages = [{ role: 'user', content: 'What is the capital of France?' }]
    const options = { temperature: 0, maxNewTokens: 8 }
    const [a] = await policy.generate([{ prompt: messages }], options)
    const [b] = await other.generate([{ prompt: messages }], options)
    t.deepEqual(a, b)
    t.regex(a!.text, /Paris/)
  },
)

test('equal seeds give equal weights, and other seeds others', async (t) => {
  const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => bytePolicy(t, { seed })))
  t.deepEqual(await parametersOf(a!), await parametersOf(b!))
  t.notDeepEqual(await a!.score([prompt]), await c!.score([prompt]))
})

test('a saved policy keeps its tokenizer, end tokens and stop strings', async (t) => {
  const policy = await bytePolicy(t)
  const folder = path.join(await temporaryFolder(t), 'deep', 'policy')
  await policy.save(folder, { stopStrings: ['</answer>'] })
  const again = await load(t, folder, { dtype: 'f32' })
  t.deepEqual(again.stopStrings, ['</answer>'])
  t.deepEqual(again.endTokenIds, policy.endTokenIds)
  const text = 'abc </answer>.'
  t.deepEqual(again.tokenizer!.encode(text), policy.tokenizer!.encode(text))
  await again.save(folder)
  t.deepEqual((await load(t, folder)).stopStrings, ['</answer>'])
})

test('saving replaces a folder as a whole; saving that fails leaves the old one', async (t) => {
  const policy = await bytePolicy(t)
  const parent = await temporaryFolder(t)
  const folder = path.join(parent, 'policy')
  await mkdir(folder)
  await writeFile(path.join(folder, 'old.txt'), 'old')
  const blocked = path.join(parent, 'file', 'policy')
  await writeFile(path.join(parent, 'file'), '')
  await t.throwsAsync(policy.save(blocked), { code: 'ERR_IO', message: /Can't write/ })
  const name = 'model.norm.weight'
  await policy.writeParameter(name, (await policy.readParameter(name)).fill(1e20))
  await t.throwsAsync(policy.save(folder, { dtype: 'f16' }), { code: 'ERR_INVALID_ARG' })
  t.deepEqual(await readdir(folder), ['old.txt'])
  await policy.save(folder)
  t.false((await readdir(folder)).includes('old.txt'))
  t.deepEqual((await readdir(parent)).sort(), ['file', 'policy'])
})

test('a clone keeps its weights when the original changes, and outlives it', async (t) => {
  const policy = await bytePolicy(t)
  const clone = await policy.clone()
  t.teardown(() => clone.dispose())
  const before = await policy.score([prompt])
  t.deepEqual(await clone.score([prompt]), before)
  const name = 'model.layers.1.self_attn.q_proj.weight'
  await policy.writeParameter(name, (await policy.readParameter(name)).fill(0))
  t.notDeepEqual(await policy.score([prompt]), before)
  t.deepEqual(await clone.score([prompt]), before)
  await policy.dispose()
  t.deepEqual(await clone.score([prompt]), before)
  t.is(clone.tokenizer!.decode(clone.tokenizer!.encode('é')), 'é')
})

test('a frozen clone samples and scores with the same bits, saves what it has, and refuses to be changed', async (t) => {
  const policy = await bytePolicy(t)
  const frozen = await policy.clone({ frozen: true })
  t.teardown(() => frozen.dispose())
  const before = await policy.score([prompt])
  const sampling = { maxNewTokens: 8, seed: 4 }
  t.deepEqual(
    await frozen.generate([{ tokens: prompt }], sampling),
    await policy.generate([{ tokens: prompt }], sampling),
  )
  const name = 'model.layers.1.self_attn.q_proj.weight'
  await policy.writeParameter(name, (await policy.readParameter(name)).fill(0))
  t.deepEqual(await frozen.score([prompt]), before)
  const folder = path.join(await temporaryFolder(t), 'frozen')
  await frozen.save(folder, { dtype: 'f32' })
  const loaded = await Policy.load(folder, { dtype: policy.dtype })
  t.teardown(() => loaded.dispose())
  t.deepEqual(await loaded.score([prompt]), before)
  await t.throwsAsync(frozen.writeParameter(name, await frozen.readParameter(name)), {
    code: 'ERR_INVALID_ARG',
    message: /can be changed but received a frozen clone/,
  })
  await t.throwsAsync(policy.clone({ frozen: 1 as never }), { code: 'ERR_INVALID_ARG' })
})

test('score gives T - 1 values a sequence, those of softmax(logits / temperature)', async (t) => {
  const policy = await bytePolicy(t)
  const size = policy.config.vocabSize
  const logits = await policy.logits(prompt)
  t.is(logits.length, prompt.length * size)
  const [scores, single] = await policy.score([prompt, prompt.slice(0, 1)], { temperature: 0.5 })
  t.is(single!.logProbs.length, 0)
  t.is(scores!.logProbs.length, prompt.length - 1)
  for (let i = 0; i + 1 < prompt.length; i++) {
    const row = Float64Array.from(logits.slice(i * size, (i + 1) * size), (value) => value / 0.5)
    const total = row.reduce((sum, value) => sum + Math.exp(value), 0)
    const expected = row[prompt[i + 1]!]! - Math.log(total)
    const entropy = row.reduce((sum, value) => sum - (Math.exp(value) / total) * (value - Math.log(total)), 0)
    t.true(Math.abs(scores!.logProbs[i]! - expected) < 1e-5)
    t.true(Math.abs(scores!.entropies[i]! - entropy) < 1e-5)
  }
})

test('groups have the scores of their sequences alone, wherever long lists are cut into passes', async (t) => {
  const policy = await bytePolicy(t, { config: { maxPositions: 4096 } })
  // Two groups that a pass does not hold together, one that is longer than a pass, and a sequence without siblings.
  const groups = [
    { shared: 156, own: 127, n: 8 },
    { shared: 300, own: 200, n: 9 },
    { shared: 1500, own: 90, n: 12 },
    { shared: 0, own: 40, n: 1 },
    { shared: 2100, own: 30, n: 3 },
  ]
  const sequences = groups.flatMap(({ shared, own, n }, group) => {
    const beginning = someTokens(shared, group, 256)
    return Array.from({ length: n }, (_, i) =>
      Int32Array.of(...beginning, ...someTokens(own, 100 * group + i, 256)),
    )
  })
  const together = await policy.score(sequences)
  for (const [i, sequence] of sequences.entries()) t.deepEqual([together[i]], await policy.score([sequence]))
})

test('after dispose every method is ERR_DISPOSED, plain properties stay, and disposing again does nothing', async (t) => {
  const policy = await bytePolicy(t)
  await policy.dispose()
  await policy.dispose()
  policy[Symbol.dispose]()
  await policy[Symbol.asyncDispose]()
  t.true(policy.disposed)
  t.is(policy.dtype, 'f32')
  const gone = { code: 'ERR_DISPOSED' }
  await t.throwsAsync(policy.generate([{ tokens: prompt }]), gone)
  await t.throwsAsync(policy.score([prompt]), gone)
  await t.throwsAsync(policy.logits(prompt), gone)
  await t.throwsAsync(policy.clone(), gone)
  await t.throwsAsync(policy.save('never'), gone)
  await t.throwsAsync(policy.readParameter('model.norm.weight'), gone)
  t.throws(() => policy.parameters(), gone)
  t.throws(() => policy.setCacheBudget(1), gone)
})

test('disposing in the middle of work rejects that work with ERR_DISPOSED', async (t) => {
  const policy = await bytePolicy(t)
  const gone = { code: 'ERR_DISPOSED' }
  const running = [
    t.throwsAsync(policy.generate([{ tokens: prompt, n: 50 }], { maxNewTokens: 450, ignoreEnd: true }), gone),
    t.throwsAsync(policy.score(Array.from({ length: 200 }, (_, i) => someTokens(500, i, 256))), gone),
  ]
  await new Promise((resolve) => setTimeout(resolve, 20))
  await policy.dispose()
  await Promise.all(running)
})

test('bad input of the other methods is a coded error, and the policy goes on', async (t) => {
  const policy = await bytePolicy(t)
  const bad = { code: 'ERR_INVALID_ARG' }
  await t.throwsAsync(policy.score([prompt], { temperature: 0 }), bad)
  await t.throwsAsync(policy.score([prompt], { temperature: Number.NaN }), bad)
  await t.throwsAsync(policy.score([new Int32Array(0)]), bad)
  await t.throwsAsync(policy.score([[1, 2]] as never), bad)
  await t.throwsAsync(policy.score([someTokens(513, 1, 256)]), { ...bad, message: /at most 512/ })
  await t.throwsAsync(policy.score([Int32Array.of(265)]), { ...bad, message: /0 to 264/ })
  await t.throwsAsync(policy.logits(Int32Array.of(-1)), bad)
  await t.throwsAsync(policy.save(''), bad)
  await t.throwsAsync(policy.save('x', { dtype: 'int4' as never }), bad)
  await t.throwsAsync(policy.save('x', { shardBytes: 0 }), bad)
  await t.throwsAsync(policy.readParameter('nothing'), bad)
  await t.throwsAsync(policy.writeParameter('model.norm.weight', new Float32Array(3)), bad)
  await t.throwsAsync(Policy.initialize(policy.config, { seed: -1 }), bad)
  await t.throwsAsync(Policy.initialize(policy.config, {} as never), bad)
  await t.throwsAsync(Policy.initialize(policy.config, { seed: 1, threads: 0 }), bad)
  await t.throwsAsync(Policy.load('x', { dtype: 'f64' as never }), bad)
  await t.throwsAsync(Policy.load('x', { device: 'tpu' as never }), { code: 'ERR_NO_DEVICE' })
  await t.throwsAsync(Policy.load('/no/such/folder'), { code: 'ERR_IO' })
  await t.throwsAsync(Policy.load(7 as never), bad)
  await t.throwsAsync(Policy.load('x', { revison: 'y' } as never), { ...bad, message: /revison/ })
  t.is((await policy.score([prompt])).length, 1)
})

test('a tokenizer that does not fit the model is ERR_TOKENIZER', async (t) => {
  const { config } = await bytePolicy(t)
  const tokenizer = byteTokenizer()
  const options = { seed: 1, tokenizer }
  await t.throwsAsync(Policy.initialize({ ...config, vocabSize: 100 }, options), { code: 'ERR_TOKENIZER' })
  await t.throwsAsync(Policy.initialize({ ...config, vocabSize: 4000 }, options), { code: 'ERR_TOKENIZER' })
})

test('an error of native work has the stack of the call', async (t) => {
  const policy = await bytePolicy(t)
  const callThatFails = async () => policy.readParameter('nothing')
  const error = await t.throwsAsync(callThatFails())
  t.is(error!.name, 'SsrlError')
  t.regex(error!.stack!, /callThatFails/)
})

test('a model beyond SSRL_MEMORY is ERR_OUT_OF_MEMORY with both numbers', async (t) => {
  const script = `
    import { Policy } from './lib/index.ts'
    const config = { architecture: 'LlamaForCausalLM', hiddenSize: 512, intermediateSize: 1024, numLayers: 8,
      numHeads: 8, numKvHeads: 8, headDim: 64, vocabSize: 8000, maxPositions: 512, rmsNormEps: 1e-5,
      rope: { theta: 10000, scaling: null }, qkvBias: false, outputBias: false, mlpBias: false, qkNorm: false,
      tieWordEmbeddings: true, initializerRange: 0.02, eosTokenIds: [] }
    await Policy.initialize(config, { seed: 1, dtype: 'f32' }).catch((e) => console.log(e.code, e.message))
    const small = { ...config, hiddenSize: 64, numLayers: 1, intermediateSize: 64 }
    const policy = await Policy.initialize(small, { seed: 1, dtype: 'f32' })
    console.log('usable', (await policy.generate([{ tokens: Int32Array.of(1) }], { maxNewTokens: 2 })).length)`
  const { stdout } = await execa('node', ['--import=tsx', '--input-type=module', '-e', script], {
    env: { SSRL_MEMORY: '40MB' },
  })
  t.regex(stdout, /^ERR_OUT_OF_MEMORY .*\d MB.* \d+\.\d MB/)
  t.regex(stdout, /usable 1$/)
})
