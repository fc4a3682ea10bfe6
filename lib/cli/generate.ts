import { Command, InvalidArgumentError } from 'commander'
import { SsrlError } from '../errors.ts'
import type { Completion } from '../policy/completion.ts'
import type { Policy } from '../policy/policy.ts'
import type { GenerateRequest } from '../policy/requests.ts'
import { samplingDefaults } from '../policy/sampling.ts'
import {
  addPolicyOptions,
  addSamplingOptions,
  integer,
  note,
  type PolicyOptions,
  print,
  printJson,
  type SamplingFlags,
} from './common.ts'
import { onInterrupt } from './interrupt.ts'

interface GenerateFlags extends PolicyOptions, SamplingFlags {
  prompt?: string
  tokens?: Int32Array
  chat?: boolean
  n: number
  json?: boolean
}

/** `ssrl generate`: completions of one prompt. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description(
      'Sample completions of a prompt. Prints their text, or with --json tokens, log-probs and entropies.',
    )
    .option('--prompt <text>', 'the text to go on from (default: what comes on stdin)')
    .option('--tokens <ids>', 'the prompt as token ids, 1,2,3; needs no tokenizer', tokenIds)
    .option('--chat', "send the prompt as a user's message, through the model's chat template")
    .option('-n <count>', 'completions', integer({ min: 1 }), 1)
    .option('--json', 'print ids, token texts, log-probs and entropies as JSON')
    .action(generate)
  const { temperature, topP, topK, minP, maxNewTokens } = samplingDefaults
  return addSamplingOptions(addPolicyOptions(command), { temperature, topP, topK, minP, maxNewTokens })
}

function tokenIds(text: string): Int32Array {
  const ids = text.split(',').map((id) => (/^\s*\d+\s*$/.test(id) ? Number(id) : Number.NaN))
  if (ids.every((id) => id < 2 ** 31)) return Int32Array.from(ids)
  throw new InvalidArgumentError(`Expected token ids as 1,2,3 but received '${text}'.`)
}

async function generate(flags: GenerateFlags): Promise<void> {
  if (flags.tokens !== undefined && (flags.prompt !== undefined || flags.chat)) {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected --tokens alone, without --prompt or --chat')
  }
  const text = flags.tokens === undefined ? (flags.prompt ?? (await readStdin())) : null
  const { Policy } = await import('../policy/policy.ts')
  const interrupt = onInterrupt()
  try {
    const { device, dtype, threads } = flags
    const policy = await Policy.load(flags.policy, { device, dtype, threads, signal: interrupt.signal })
    await sample(policy, text, flags, interrupt.signal)
    await policy.dispose()
  } finally {
    interrupt.dispose()
  }
}

async function sample(
  policy: Policy,
  text: string | null,
  flags: GenerateFlags,
  signal: AbortSignal,
): Promise<void> {
  const { temperature, topP, topK, minP, maxNewTokens, seed } = flags
  const stop = flags.stop ?? [...policy.stopStrings]
  const request = {
    ...promptOf(text, flags),
    ...{ n: flags.n, temperature, topP, topK, minP, maxNewTokens, stop, seed },
  }
  if (flags.json) {
    const completions = await policy.generate([request], { signal })
    printJson(report(policy, text, completions))
  } else if (flags.n === 1 && policy.tokenizer !== null) {
    await stream(policy, request, signal)
  } else {
    const completions = await policy.generate([request], { signal })
    completions.forEach((completion, i) => {
      print(`${i > 0 ? '\n' : ''}[${i + 1}] (${completion.finishReason})\n${shown(policy, completion)}`)
    })
  }
}

function promptOf(text: string | null, { tokens, chat }: GenerateFlags): GenerateRequest {
  if (text === null) return { tokens: tokens! }
  return { prompt: chat ? [{ role: 'user', content: text }] : text }
}

/** The text, or the ids where the policy has no tokenizer. */
const shown = ({ tokenizer }: Policy, { text, tokens }: Completion) =>
  tokenizer === null ? tokens.join(',') : text

/** One completion is shown as it comes. */
async function stream(policy: Policy, request: GenerateRequest, signal: AbortSignal): Promise<void> {
  let shown = ''
  const onToken = ({ text }: { text: string }) => {
    shown += text
    process.stdout.write(text)
  }
  const [completion] = await policy.generate([request], { signal, onToken })
  // Bytes at the very end that are no whole character come with the completion only.
  print(completion!.text.startsWith(shown) ? completion!.text.slice(shown.length) : '')
  note(`${completion!.tokens.length} tokens, finished by ${completion!.finishReason}`)
}

function report(policy: Policy, prompt: string | null, completions: Completion[]) {
  const { dtype, exact, tokenizer } = policy
  const pieces = (tokens: Int32Array) => tokenizer && Array.from(tokens, (id) => tokenizer.decode([id]))
  return {
    prompt,
    promptTokens: Array.from(completions[0]!.promptTokens),
    dtype,
    exact,
    completions: completions.map(({ tokens, logProbs, entropies, sampledLogProbs, text, finishReason }) => ({
      text,
      finishReason,
      tokens: Array.from(tokens),
      pieces: pieces(tokens),
      logProbs: Array.from(logProbs),
      entropies: Array.from(entropies),
      ...(sampledLogProbs && { sampledLogProbs: Array.from(sampledLogProbs) }),
    })),
  }
}

async function readStdin(): Promise<string> {
  if (process.stdin.isTTY) {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected --prompt, or a prompt on stdin')
  }
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
