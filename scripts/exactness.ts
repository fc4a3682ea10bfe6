/**
 * Compares the log-probs of generate, score and the learner bit for bit, over the full product of batch size, longest
 * prompt, threads and compute type: `npx tsx scripts/exactness.ts --policy MODEL`. Exits with 1 when anything differs.
 */
import { parseArgs } from 'node:util'
import { loadNative } from '../lib/native.ts'
import { Policy } from '../lib/policy/policy.ts'
import { Random } from '../lib/random.ts'
import { inexactnesses, newLearner, raggedBatch } from '../test/helpers/exactness.ts'

const { values } = parseArgs({
  options: {
    policy: { type: 'string', short: 'p' },
    sizes: { type: 'string', default: '65' },
    prompts: { type: 'string', default: '1,3,31,47,64,65,123,300,600' },
    threads: { type: 'string', default: '1,2,3' },
    new: { type: 'string', default: '3' },
  },
})
if (values.policy === undefined) {
  console.error(
    'Expected --policy MODEL [--sizes 65] [--prompts 1,3,31,…] [--threads 1,2,3] [--new 3]: every batch size up to ' +
      '--sizes, with prompts up to each of --prompts',
  )
  process.exit(2)
}

const numbers = (text: string) => text.split(',').map(Number)
const sizes = Number(values.sizes)
const mostNew = Number(values.new)
const dtypes = loadNative().environment().bf16 ? (['f32', 'bf16'] as const) : (['f32'] as const)
let batches = 0
let rows = 0
let different = 0
const started = performance.now()

for (const dtype of dtypes) {
  for (const threads of numbers(values.threads)) {
    await using policy = await Policy.load(values.policy, { dtype, threads })
    const learner = newLearner(policy)
    for (const longest of numbers(values.prompts)) {
      const longestPrompt = Math.min(longest, policy.config.maxPositions - mostNew)
      await compareSizes(policy, learner, { longestPrompt, label: `${dtype}, ${threads} threads` })
    }
    await learner.dispose()
  }
}
console.log(
  `${batches} batches, ${rows} rows: ${different === 0 ? 'all the same bits' : `${different} batches differ`}`,
)
process.exitCode = different === 0 ? 0 : 1

async function compareSizes(
  policy: Policy,
  learner: ReturnType<typeof newLearner>,
  { longestPrompt, label }: { longestPrompt: number; label: string },
): Promise<void> {
  const { vocabSize } = policy.config
  for (let size = 1; size <= sizes; size++) {
    const seed = longestPrompt * 1000 + size
    const temperature = 0.3 + new Random(seed).integer(13) / 10
    const requests = raggedBatch({ rows: size, seed, vocabSize, longestPrompt, mostNew })
    const completions = await policy.generate(requests, { seed, temperature, ignoreEnd: true })
    const found = await inexactnesses(policy, learner, completions, temperature)
    batches += 1
    rows += completions.length
    if (found.length > 0) different += 1
    for (const what of found) console.log(`${label}, ${size} rows, prompts to ${longestPrompt}: ${what}`)
  }
  const seconds = Math.round((performance.now() - started) / 1000)
  console.log(`${label}, 1 to ${sizes} rows, prompts to ${longestPrompt}: done after ${seconds} s`)
}
