/**
 * Every case with its sizes. A case is a name on the command line; its variants are measured one after the other, each
 * by all its contenders in turn.
 */

export type Sizes =
  | { kind: 'load' }
  | { kind: 'generate'; prompts: number; promptTokens: number; n: number; newTokens: number[] }
  | { kind: 'prefill'; promptTokens: number }
  | { kind: 'learner'; sequences: number; tokens: number; promptTokens: number }
  | { kind: 'grpo-step'; prompts: number; promptTokens: number; n: number; newTokens: number; beta: number }
  | {
      kind: 'loop-lag' | 'typescript' | 'memory'
      steps: number
      prompts: number
      n: number
      newTokens: number
    }
  | { kind: 'matmul' | 'attention' | 'policy-loss' | 'sampling'; rows: number }
  | { kind: 'quickstart' }
  | { kind: 'search-index' | 'search-query'; passages: number; queries: number }
  | { kind: 'search-busy'; prompts: number; n: number; newTokens: number; latency: number }

export type Unit = 'tok/s' | 's' | 'ms' | '%'

export interface Variant {
  case: string
  /** unique; what a row of results.csv is found by */
  id: string
  title: string
  unit: Unit
  sizes: Sizes
  /** policy: --policy, or a random model of SmolLM2's shape; the others are random always */
  model: 'policy' | 'qwen2.5-0.5b' | 'qwen2.5-0.5b-32k' | 'tiny'
  /** what a row names instead of the model, where there is none */
  data?: string
  /** instead of --threads */
  threads?: number
  /** left out unless it is named: for GPUs */
  byName?: boolean
}

type Options = Partial<Pick<Variant, 'model' | 'data' | 'threads' | 'byName'>>

function variant(id: string, title: string, unit: Unit, sizes: Sizes, options: Options = {}): Variant {
  return { case: id.split('/')[0]!, id, title, unit, sizes, model: 'policy', ...options }
}

const generate = (prompts: number, promptTokens: number, n: number, newTokens: number[]): Sizes => ({
  kind: 'generate',
  prompts,
  promptTokens,
  n,
  newTokens,
})

const learner = (sequences: number, tokens: number, promptTokens = 64): Sizes => ({
  kind: 'learner',
  sequences,
  tokens,
  promptTokens,
})

const corpus = { passages: 1_000_000, queries: 200 }
const madeUp = { model: 'tiny', data: 'made-up passages' } as const

const contexts = [512, 1024, 2048, 4096]
/** A third of the sequences each. */
const ragged = [16, 64, 256]

/** What `--quick` and its tests take instead: the same paths in seconds. */
function shortened({ sizes, ...rest }: Variant): Variant {
  const short: Record<string, number | number[]> = {}
  for (const [name, value] of Object.entries(sizes)) {
    if (typeof value === 'number' && name !== 'beta') short[name] = Math.max(1, Math.ceil(value / 8))
    if (Array.isArray(value)) short[name] = value.map((count) => Math.ceil(count / 8))
  }
  if (sizes.kind === 'memory') short.steps = 12
  if ('passages' in sizes) short.passages = Math.ceil(sizes.passages / 1000)
  // A group of one has no advantages.
  if (sizes.kind !== 'generate' && 'n' in sizes) short.n = 2
  return { ...rest, sizes: { ...sizes, ...short } as Sizes }
}

const all: Variant[] = [
  variant('load', 'load, ready to generate', 's', { kind: 'load' }),
  ...contexts.map((tokens) =>
    variant(`prefill/${tokens}`, `prompt of ${tokens}`, 'tok/s', { kind: 'prefill', promptTokens: tokens }),
  ),
  variant('generate/32', '32 × (64 + 64)', 'tok/s', generate(32, 64, 1, [64])),
  variant('generate/32-1-thread', '32 × (64 + 64), one thread', 'tok/s', generate(32, 64, 1, [64]), {
    threads: 1,
  }),
  variant('generate/256', '256 × (64 + 64)', 'tok/s', generate(256, 64, 1, [64]), { byName: true }),
  variant('generate/groups', '8 groups of 8, shared prompt, 156 + 128', 'tok/s', generate(8, 156, 8, [128])),
  variant('generate/ragged', '33 × (64 + 16, 64 or 256)', 'tok/s', generate(33, 64, 1, ragged)),
  variant('generate-one', 'one sequence, 64 + 256', 'tok/s', generate(1, 64, 1, [256])),
  variant('learner/4x256', 'policy gradient, 4 × 256', 'tok/s', learner(4, 256)),
  variant('learner/4x256-1-thread', 'policy gradient, 4 × 256, one thread', 'tok/s', learner(4, 256), {
    threads: 1,
  }),
  variant('learner/packed-4096', 'policy gradient, 4,096 tokens in 16 rows', 'tok/s', learner(16, 256)),
  variant('learner/packed-8192', 'policy gradient, 8,192 tokens in 32 rows', 'tok/s', learner(32, 256), {
    byName: true,
  }),
  variant('learner/qwen-4x256', 'policy gradient, 4 × 256, Qwen2.5-0.5B shape', 'tok/s', learner(4, 256), {
    model: 'qwen2.5-0.5b',
  }),
  variant('learner/qwen-32k-4x256', 'the same with a vocabulary of 32,768', 'tok/s', learner(4, 256), {
    model: 'qwen2.5-0.5b-32k',
  }),
  ...contexts.map((tokens) =>
    variant(`learner/context-${tokens}`, `policy gradient, 1 × ${tokens}`, 'tok/s', learner(1, tokens)),
  ),
  variant('grpo-step', 'GRPO step, 4 prompts × 8 completions, 156 + 128', 's', {
    kind: 'grpo-step',
    prompts: 4,
    promptTokens: 156,
    n: 8,
    newTokens: 128,
    beta: 0.001,
  }),
  ...[1, 32, 2048].map((rows) =>
    variant(`matmul/${rows}`, `matrix products of a pass, ${rows} rows`, 'ms', { kind: 'matmul', rows }),
  ),
  variant('attention', 'attention of a layer, 4 × 512, forward and backward', 'ms', {
    kind: 'attention',
    rows: 2048,
  }),
  variant('policy-loss', 'projection, loss and gradients, 1,024 rows', 'ms', {
    kind: 'policy-loss',
    rows: 1024,
  }),
  variant('sampling', 'draw and log-prob, 32 rows', 'ms', { kind: 'sampling', rows: 32 }),
  variant('loop-lag', 'lateness of a 10 ms timer while training, largest', 'ms', {
    kind: 'loop-lag',
    steps: 3,
    prompts: 4,
    n: 8,
    newTokens: 128,
  }),
  variant('loop-lag/typescript', "main thread's share of a training step", '%', {
    kind: 'typescript',
    steps: 3,
    prompts: 4,
    n: 8,
    newTokens: 128,
  }),
  variant(
    'memory/200-steps',
    'growth of memory over 200 steps, tiny model',
    '%',
    {
      kind: 'memory',
      steps: 200,
      prompts: 2,
      n: 4,
      newTokens: 16,
    },
    { model: 'tiny' },
  ),
  variant('memory/12-steps', 'growth of memory over 12 steps', '%', {
    kind: 'memory',
    steps: 12,
    prompts: 2,
    n: 4,
    newTokens: 32,
  }),
  variant(
    'search-index/build',
    'a local index of a million passages',
    's',
    { kind: 'search-index', ...corpus },
    madeUp,
  ),
  variant(
    'search-index/query',
    'a query to a million passages',
    'ms',
    { kind: 'search-query', ...corpus },
    madeUp,
  ),
  variant('search-busy', 'generator at work, 64 rows whose searches take 200 ms each', '%', {
    kind: 'search-busy',
    prompts: 8,
    n: 8,
    newTokens: 160,
    latency: 200,
  }),
  variant('quickstart', 'npm run quickstart, set-up aside', 's', { kind: 'quickstart' }),
]

export const caseNames = [...new Set(all.map((variant) => variant.case))]

/** The variants of these cases (`generate`) or single ones (`generate/groups`); all of them for no name. */
export function variantsOf(names: readonly string[], { quick }: { quick: boolean }): Variant[] {
  const wanted = (variant: Variant) =>
    names.includes(variant.id) || (!variant.byName && (names.length === 0 || names.includes(variant.case)))
  return all.filter(wanted).map((variant) => (quick ? shortened(variant) : variant))
}

export function knows(name: string): boolean {
  return all.some((variant) => variant.case === name || variant.id === name)
}

/** Tokens that the figure of a tok/s variant counts. */
export function tokensOf(sizes: Sizes): number {
  if (sizes.kind === 'generate') return sizes.n * newTokensOf(sizes).reduce((sum, count) => sum + count, 0)
  if (sizes.kind === 'prefill') return sizes.promptTokens
  if (sizes.kind === 'learner') return sizes.sequences * sizes.tokens
  return Number.NaN
}

/** New tokens of each prompt: the lengths take turns, so that long and short ones stand mixed. */
export function newTokensOf(sizes: Extract<Sizes, { kind: 'generate' }>): number[] {
  return Array.from({ length: sizes.prompts }, (_, i) => sizes.newTokens[i % sizes.newTokens.length]!)
}
