import test, { type ExecutionContext } from 'ava'
import { Policy, Session } from '../../lib/index.ts'
import type { DType } from '../../lib/native.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'
import { fixtureNames, Reference } from '../helpers/reference.ts'
import { readSafetensors } from '../helpers/safetensors.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const smollm2 = sharedPath('models', 'smollm2-135m-instruct')

async function load(t: ExecutionContext, source: string, dtype: DType, threads = 2): Promise<Policy> {
  const policy = await Policy.load(source, { dtype, threads })
  t.teardown(() => policy.dispose())
  return policy
}

for (const name of fixtureNames) {
  testWithShared(`${name}, f32: greedy tokens are those of transformers`, async (t) => {
    const reference = new Reference(name)
    const greedy = readSafetensors(`${reference.folder}/reference.safetensors`).get('greedy')!
      .data as Int32Array
    const policy = await load(t, reference.folder, 'f32')
    const [completion] = await policy.generate([{ tokens: greedy.slice(0, 20) }], {
      temperature: 0,
      maxNewTokens: 24,
      ignoreEnd: true,
    })
    t.deepEqual(completion!.tokens, greedy.slice(20))
  })
}

testWithShared('SmolLM2: greedy tokens are those of transformers', async (t) => {
  await assertGreedy(t, await load(t, smollm2, 'f32'))
})

/** The reference was made with end tokens forbidden: up to the first one that we draw, tokens must be equal. */
async function assertGreedy(t: ExecutionContext, policy: Policy) {
  const reference = readSafetensors(sharedPath('fixtures', 'smollm2', 'reference.safetensors'))
  const names = [...reference.keys()].filter((name) => name.endsWith('.greedy'))
  const data = (name: string) => reference.get(name)!.data as Int32Array
  const requests = names.map((name) => ({
    tokens: data(name.replace('greedy', 'ids')).slice(0, data(name.replace('greedy', 'prompt_len'))[0]),
    maxNewTokens: data(name).length,
  }))
  const completions = await policy.generate(requests, { temperature: 0 })
  t.true(completions.length > 0)
  completions.forEach(({ tokens, finishReason }, i) => {
    const ours = finishReason === 'end' ? tokens.slice(0, -1) : tokens
    t.deepEqual(ours, data(names[i]!).slice(0, ours.length), names[i])
  })
  t.true(completions.some(({ finishReason }) => finishReason === 'length'))
  await policy.dispose()
}

test('a cache that is too small for the batch makes rows wait and be recomputed, and changes nothing', async (t) => {
  const requests = Array.from({ length: 12 }, (_, i) => ({
    tokens: someTokens(40 + i * 11, i, 256),
    n: 1 + (i % 3),
    maxNewTokens: 60,
  }))
  const options = { seed: 3, ignoreEnd: true }
  const policy = await bytePolicy(t)
  const roomy = await policy.generate(requests, options)
  t.is((await policy.generatorStatistics()).preemptions, 0)
  const pageBytes = 2 * 2 * 64 * 20 * 4
  for (const pages of [5, 7, 13, 40]) {
    const tight = await bytePolicy(t)
    tight.setCacheBudget(pages * pageBytes)
    t.deepEqual(await tight.generate(requests, options), roomy, `${pages} pages`)
    const { preemptions, pagesTotal, pagesUsed } = await tight.generatorStatistics()
    t.is(pagesTotal, pages)
    t.is(pagesUsed, 0)
    t.true(preemptions > 0, `${pages} pages`)
  }
})

test('a sequence that outgrows the whole cache is ERR_OUT_OF_MEMORY, and the policy goes on', async (t) => {
  const policy = await bytePolicy(t)
  policy.setCacheBudget(2 * 2 * 2 * 64 * 20 * 4)
  const long = { tokens: someTokens(200, 1, 256) }
  await t.throwsAsync(policy.generate([long]), { code: 'ERR_OUT_OF_MEMORY', message: /budget/ })
  const [completion] = await policy.generate([{ tokens: someTokens(3, 1, 256) }], { maxNewTokens: 4 })
  t.true(completion!.tokens.length > 0)
})

test('a group computes its prompt once', async (t) => {
  const policy = await bytePolicy(t)
  const tokens = someTokens(150, 1, 256)
  await policy.generate([{ tokens, n: 16 }], { maxNewTokens: 3, ignoreEnd: true })
  const { prefilledTokens, decodedTokens } = await policy.generatorStatistics()
  t.is(prefilledTokens, 150)
  t.is(decodedTokens, 48)
})

test('a group of more samples than decode at once gives each the tokens that it has alone', async (t) => {
  const policy = await bytePolicy(t)
  const tokens = someTokens(70, 1, 256)
  const options = { seed: 5, maxNewTokens: 3, ignoreEnd: true }
  const all = await policy.generate([{ tokens, n: 600, seed: 8 }], options)
  t.is(all.length, 600)
  t.deepEqual(
    all.map(({ sampleIndex }) => sampleIndex),
    Array.from({ length: 600 }, (_, i) => i),
  )
  const few = await policy.generate([{ tokens, n: 20, seed: 8 }], options)
  t.deepEqual(all.slice(0, 20), few)
})

test('weights that change in the middle of a session are used from then on, as by a fresh policy', async (t) => {
  const policy = await bytePolicy(t)
  const prompt = someTokens(80, 1, 256)
  const session = await Session.open(policy, prompt)
  const name = 'model.layers.0.mlp.down_proj.weight'
  const values = (await policy.readParameter(name)).map((value) => value * 1.5)
  await policy.writeParameter(name, values)
  const options = { seed: 2, maxNewTokens: 12, ignoreEnd: true }
  const after = await session.generate(options)
  const [fresh] = await policy.generate([{ tokens: prompt, seed: 2 }], options)
  t.deepEqual(after.logProbs, fresh!.logProbs)
  t.deepEqual(after.tokens, fresh!.tokens)
})
