import test, { type ExecutionContext } from 'ava'
import { informationWeights } from '../../lib/rollout/mask.ts'
import { dropLongPrompts, selfSearch, selfSearchAll } from '../../lib/rollout/self-search.ts'
import type { Trajectory } from '../../lib/rollout/trajectory.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

const options = {
  n: 3,
  maxNewTokens: 16,
  seed: 5,
  promptTemplate: { name: 'short', text: shortTemplate },
}

async function policyOf(t: ExecutionContext) {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  return policy
}

test('each question gives one group, with ids and log-probs straight from the sampler', async (t) => {
  const policy = await policyOf(t)
  const groups: Trajectory[][] = []
  for await (const group of selfSearch(policy, questions(4), options)) groups.push(group)
  t.is(groups.length, 4)
  for (const group of groups) {
    t.is(new Set(group.map(({ group: index }) => index)).size, 1)
    t.deepEqual(
      group.map(({ sampleIndex }) => sampleIndex),
      [0, 1, 2],
    )
    for (const trajectory of group) {
      const [scored] = await policy.score([trajectory.tokens])
      const first = trajectory.promptLength - 1
      t.deepEqual(trajectory.logProbs.slice(first), scored!.logProbs.slice(first))
      t.deepEqual(trajectory.entropies.slice(first), scored!.entropies.slice(first))
      t.is(
        trajectory.text,
        policy.tokenizer!.decode(trajectory.tokens.slice(trajectory.promptLength), { skipSpecial: true }),
      )
    }
  }
})

test('the same seed gives the same trajectories, whichever other questions there are', async (t) => {
  const policy = await policyOf(t)
  const two = await selfSearchAll(policy, questions(2), options)
  const five = await selfSearchAll(policy, questions(5), options)
  t.deepEqual(five.slice(0, 2), two)
  const other = await selfSearchAll(policy, questions(2), { ...options, seed: 6 })
  t.notDeepEqual(
    other.map((group) => group.map(({ tokens }) => tokens)),
    two.map((group) => group.map(({ tokens }) => tokens)),
  )
})

test('leaving the loop early stops the sampler', async (t) => {
  const policy = await policyOf(t)
  let seen = 0
  for await (const _ of selfSearch(policy, questions(40), { ...options, maxNewTokens: 200 })) {
    seen += 1
    break
  }
  t.is(seen, 1)
  t.is((await selfSearchAll(policy, questions(1), options)).length, 1)
})

test('an abort rejects with its reason', async (t) => {
  const policy = await policyOf(t)
  const reason = new Error('stop')
  const signal = AbortSignal.abort(reason)
  t.is(await t.throwsAsync(selfSearchAll(policy, questions(2), { ...options, signal })), reason)
})

test('masks stand on the borders of the sampled tokens', async (t) => {
  const policy = await policyOf(t)
  const [[trajectory]] = (await selfSearchAll(policy, questions(1), { ...options, n: 1 })) as [[Trajectory]]
  t.is(trajectory.tokenEnds.length, trajectory.tokens.length - trajectory.promptLength)
  t.is(trajectory.tokenEnds.at(-1), trajectory.text.length)
  const weights = informationWeights(trajectory.spans, trajectory.tokenEnds.length)
  t.is(weights.length, trajectory.tokenEnds.length)
})

test('prompts over the limit are dropped with a count, and none left is refused', async (t) => {
  const policy = await policyOf(t)
  const long = { ...questions(1)[0]!, question: `Where ${'and where '.repeat(30)}?` }
  const encoding = { promptTemplate: options.promptTemplate, maxPromptLength: 30 }
  const { kept, dropped } = await dropLongPrompts(policy, [...questions(2), long], encoding)
  t.deepEqual([kept.length, dropped], [2, 1])
  await t.throwsAsync(dropLongPrompts(policy, [long], encoding), {
    code: 'ERR_INVALID_CONFIG',
    message: /the shortest has \d+/,
  })
})
