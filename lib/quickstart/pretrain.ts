/** Makes the policy that the quickstart starts from: it knows the small world's facts, and answers badly. */
import { readFile } from 'node:fs/promises'
import type { Example } from '../data/examples.ts'
import { Policy } from '../policy/policy.ts'
import { Tokenizer } from '../policy/tokenizer.ts'
import { Random } from '../random.ts'
import { SFTTrainer } from '../training/sft-trainer.ts'
import { demonstration, factText } from './demonstrations.ts'
import type { World } from './world.ts'

/** Shape and length of the pretraining; the defaults give about 1.5 M parameters and 1.4 M tokens. */
export interface PretrainOptions {
  seed: number
  steps?: number
  /** Demonstrations per step, each with fresh noise. */
  demonstrations?: number
  /** Rows of packed fact sentences per step, and the characters of a row. */
  factRows?: number
  factCharacters?: number
  signal?: AbortSignal
  onStep?: (step: number, steps: number, loss: number) => void
}

const shape = {
  architecture: 'LlamaForCausalLM',
  hiddenSize: 192,
  intermediateSize: 512,
  numLayers: 3,
  numHeads: 6,
  numKvHeads: 6,
  headDim: 32,
  maxPositions: 512,
  rmsNormEps: 1e-5,
  rope: { theta: 10_000, scaling: null },
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  tieWordEmbeddings: true,
  initializerRange: 0.02,
} as const

/** The small world's tokenizer: byte-level BPE in which a name is one token and a tag several. */
export async function loadWorldTokenizer(): Promise<Tokenizer> {
  const text = await readFile(new URL('../../assets/quickstart-tokenizer.json', import.meta.url), 'utf8')
  const config = {
    eos_token: '<|end|>',
    clean_up_tokenization_spaces: false,
    model_max_length: shape.maxPositions,
    tokenizer_class: 'PreTrainedTokenizerFast',
  }
  return new Tokenizer(
    new Map([
      ['tokenizer.json', text],
      ['tokenizer_config.json', JSON.stringify(config)],
    ]),
  )
}

/** A random policy of the small world's shape, in bf16 where the CPU has it: half the time, and as good. */
export async function createWorldPolicy(seed: number): Promise<Policy> {
  const tokenizer = await loadWorldTokenizer()
  const config = { ...shape, vocabSize: tokenizer.vocabSize, eosTokenIds: tokenizer.endTokenIds() }
  return Policy.initialize(config, { tokenizer, seed })
}

/** Supervised fine-tuning on fact sentences and noisy demonstrations, mixed in every step, one loss. */
export async function pretrain(policy: Policy, world: World, options: PretrainOptions): Promise<void> {
  const { seed, steps = 600, demonstrations = 32, factRows = 16, factCharacters = 420 } = options
  const random = new Random(seed)
  const examples: Example[] = []
  const facts = factStream(random, world, factCharacters)
  for (let step = 0; step < steps; step++) {
    for (let i = 0; i < demonstrations; i++) {
      const made = demonstration(random, world, random.choice(world.train))
      examples.push({ kind: 'completion', line: examples.length + 1, ...made })
    }
    for (let i = 0; i < factRows; i++)
      examples.push({ kind: 'text', line: examples.length + 1, text: facts.next().value })
  }
  const trainer = new SFTTrainer({
    policy,
    train: examples,
    maxSteps: steps,
    batchSize: demonstrations + factRows,
    learningRate: 2e-3,
    adamBeta2: 0.98,
    weightDecay: 0.01,
    warmupSteps: Math.min(30, Math.floor(steps / 10)),
    schedule: 'linear',
    scheduleHold: 0.7,
    scheduleFloor: 0.05,
    seed,
  })
  for await (const record of trainer.train({ signal: options.signal })) {
    options.onStep?.(record.step, steps, record.loss)
  }
}

/** Endless rows of fact sentences, about `characters` long, whole sentences only. */
function* factStream(random: Random, world: World, characters: number): Generator<string, never> {
  let row = ''
  for (;;) {
    for (const sentence of factText(random, world).split('\n')) {
      if (row.length + sentence.length > characters) {
        yield row
        row = ''
      }
      row += `${sentence}\n`
    }
  }
}
