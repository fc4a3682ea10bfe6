/**
 * `npm run check:export [-- --policy P] [--new-tokens n] [--threads n]`: exports policies, lets transformers open the
 * Hugging Face layout and node-llama-cpp the GGUF files, and compares tokenization and greedy tokens with ours. Also
 * prints the tokens per second of each, one prompt at a time. Fails when an f32 export differs anywhere.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { exportGguf, type GgufDtype } from '../../lib/policy/export.ts'
import { Policy } from '../../lib/policy/policy.ts'
import {
  type GreedyReply,
  type GreedyRequest,
  llamaCppGreedy,
  missingPeers,
  transformersGreedy,
} from './peers.ts'
import { withTokenizer } from './tiny-models.ts'

const { values: flags } = parseArgs({
  options: {
    policy: { type: 'string' },
    'new-tokens': { type: 'string', default: '32' },
    threads: { type: 'string', default: '2' },
  },
})
const newTokens = Number(flags['new-tokens'])
const threads = Number(flags.threads)
const shared = fileURLToPath(new URL('../../../shared/', import.meta.url))
const texts = [
  'The capital of the northern province is',
  'Question: which river flows through the old town, and who built its 3 bridges in 1874?\nAnswer:',
  'She opened the door and saw',
  "  Don't panic:\tnaïve café owners paid €25,000.\n\n",
]

interface Row {
  model: string
  file: string
  peer: string
  sameTokens: string
  sameIds: string
  ours: string
  theirs: string
}

const rows: Row[] = []
const versions = new Set<string>()
let failed = false

const missing = missingPeers()
if (missing) {
  console.error(`The peers are not installed. These commands install them:\n${missing}`)
  process.exit(1)
}
const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-check-export-'))
try {
  for (const { name, source } of await sources()) await check(name, source)
} finally {
  await rm(folder, { recursive: true })
}
console.table(rows)
console.log([...versions].join('; '))
process.exitCode = failed ? 1 : 0

async function sources(): Promise<{ name: string; source: string }[]> {
  if (flags.policy !== undefined) return [{ name: path.basename(flags.policy), source: flags.policy }]
  const tiny = ['llama', 'llama3-rope', 'qwen2', 'qwen3'].map(async (name) => ({
    name,
    source: await withTokenizer(path.join(shared, 'fixtures/models', name), path.join(folder, name), 512),
  }))
  const real = path.join(shared, 'models/smollm2-135m-instruct/model-q4_1.gguf')
  return [...(await Promise.all(tiny)), { name: 'smollm2-135m', source: real }]
}

/** One policy: every export against its peer. */
async function check(name: string, source: string): Promise<void> {
  const policy = await Policy.load(source, { dtype: 'f32', threads })
  const ids = texts.map((text) => [...policy.tokenizer!.encode(text)])
  const request = { prompts: ids, newTokens, threads, texts }
  const layout = path.join(folder, `${name}-exported`)
  await policy.save(layout, { dtype: 'f32' })
  const ours = await greedy(policy, request)
  compare(
    { model: name, file: 'Hugging Face f32' },
    ours,
    await transformersGreedy({ ...request, model: layout }),
    true,
  )
  const dtypes: GgufDtype[] = ['f32', 'f16', 'bf16', 'q8_0']
  for (const dtype of dtypes) {
    const model = path.join(folder, `${name}-${dtype}.gguf`)
    await exportGguf(policy, model, { dtype })
    const reread = await Policy.load(model, { dtype: 'f32', threads })
    const own = await greedy(reread, request)
    await reread.dispose()
    // Peers round activations too for types other than f32, which can decide a near tie otherwise.
    compare(
      { model: name, file: `GGUF ${dtype}` },
      own,
      await llamaCppGreedy({ ...request, model }),
      dtype === 'f32',
    )
  }
  await policy.dispose()
}

async function greedy(
  policy: Policy,
  { prompts, newTokens }: Omit<GreedyRequest, 'model'>,
): Promise<GreedyReply> {
  const tokens: number[][] = []
  const start = performance.now()
  for (const prompt of prompts) {
    const [completion] = await policy.generate([{ tokens: Int32Array.from(prompt) }], {
      temperature: 0,
      maxNewTokens: newTokens,
      ignoreEnd: true,
    })
    tokens.push([...completion!.tokens])
  }
  return { tokens, seconds: (performance.now() - start) / 1000, ids: prompts, version: 'ssrl' }
}

function compare(
  place: Pick<Row, 'model' | 'file'>,
  ours: GreedyReply,
  theirs: GreedyReply,
  strict: boolean,
): void {
  const total = ours.tokens.flat().length
  const same = ours.tokens.reduce((sum, row, i) => sum + commonPrefix(row, theirs.tokens[i]!), 0)
  const idsEqual = ours.ids.filter((row, i) => row.join() === theirs.ids[i]!.join()).length
  failed ||= idsEqual < ours.ids.length || (strict && same < total)
  versions.add(theirs.version)
  console.error(`${place.model}, ${place.file}: ${same} of ${total} tokens agree`)
  rows.push({
    ...place,
    peer: theirs.version.split(/[ ,]/)[0]!,
    sameTokens: `${same}/${total}`,
    sameIds: `${idsEqual}/${ours.ids.length}`,
    ours: `${(total / ours.seconds).toFixed(1)} tok/s`,
    theirs: `${(total / theirs.seconds).toFixed(1)} tok/s`,
  })
}

function commonPrefix(a: number[], b: number[]): number {
  const end = a.findIndex((id, i) => id !== b[i])
  return end < 0 ? a.length : end
}
