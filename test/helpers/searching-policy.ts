import { Policy } from '../../lib/policy/policy.ts'
import { Learner } from '../../lib/training/learner.ts'
import { plainLlama } from './model-config.ts'
import { worldTokenizer } from './tiny-policy.ts'

/** People of whom the policy was taught, and what it believes. */
export const people = ['Ada', 'Bea', 'Cleo', 'Dora', 'Edda', 'Fay']
const towns = ['Rome', 'Oslo', 'Bonn', 'Graz', 'Lima', 'Cork']

export const promptOf = (name: string) => `Question: Where was ${name} born?\n`
export const template = { name: 'test', text: 'Question: {question}\n' }
export const questionsOf = (names: readonly string[]) =>
  names.map((name) => ({
    id: name,
    question: `Where was ${name} born?`,
    goldenAnswers: [towns[people.indexOf(name)]!],
    fields: {},
  }))

/** Ada's trajectory has no search, Bea's two, the others' one. */
export function taught(name: string): string {
  const town = towns[people.indexOf(name)]!
  const search = `<search>birthplace of ${name}</search><information>${name} was born in ${town}.</information>`
  const again = `<think>Again.</think><search>home of ${name}</search><information>It is ${town}.</information>`
  const parts = name === 'Ada' ? '' : name === 'Bea' ? search + again : search
  return `<think>I see.</think>${parts}<think>I know.</think><answer>${town}</answer>`
}

/** What a policy is taught by heart: a prompt as it is encoded, and what to write behind it. */
export interface Lesson {
  prompt: string
  completion: string
}

/** A small policy that was taught these trajectories by heart, so that greedily it writes them. A few seconds. */
export function searchingPolicy(options: { maxPositions?: number } = {}): Promise<Policy> {
  return taughtPolicy(
    people.map((name) => ({ prompt: promptOf(name), completion: taught(name) })),
    options,
  )
}

export async function taughtPolicy(
  lessons: readonly Lesson[],
  { maxPositions = 1024 } = {},
): Promise<Policy> {
  const tokenizer = worldTokenizer()
  const policy = await Policy.initialize(
    {
      ...plainLlama,
      hiddenSize: 48,
      intermediateSize: 96,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 12,
      vocabSize: tokenizer.vocabSize,
      maxPositions,
      eosTokenIds: tokenizer.endTokenIds(),
    },
    { tokenizer, seed: 5, dtype: 'f32' },
  )
  const learner = new Learner(policy, { learningRate: 1e-2 })
  const prompts = lessons.map(({ prompt }) => tokenizer.encode(prompt))
  const tokens = lessons.map(({ prompt, completion }) => tokenizer.encode(prompt + completion))
  const lossMask = tokens.map(({ length }, i) =>
    Uint8Array.from({ length: length - 1 }, (_, t) => (t + 1 >= prompts[i]!.length ? 1 : 0)),
  )
  for (let step = 0; step < 150; step++) {
    const { loss } = await learner.accumulate({ tokens, lossMask }, { type: 'sft' })
    await learner.step({ learningRate: 1e-2 * Math.min(1, (step + 1) / 10) })
    if (loss < 0.01) break
  }
  learner.dispose()
  return policy
}
