import { type Command, InvalidArgumentError, Option } from 'commander'
import { type DeviceChoice, devicePattern } from '../policy/device.ts'

/** Results go to stdout… */
export function print(text = ''): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** …and all that is said on the way goes to stderr. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

interface Range {
  /** Smallest value allowed. */
  min?: number
  /** Largest value allowed. */
  max?: number
  /** The value must be larger than this. */
  above?: number
}

function describeRange({ min, max, above }: Range): string {
  const parts: string[] = []
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`
  if (above !== undefined) parts.push(`above ${above}`)
  if (min !== undefined) parts.push(`of at least ${min}`)
  if (max !== undefined) parts.push(`of at most ${max}`)
  return parts.length > 0 ? ` ${parts.join(' and ')}` : ''
}

function parseNumber(text: string, kind: string, isKind: (value: number) => boolean, range: Range): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  const { min = -Infinity, max = Infinity, above = -Infinity } = range
  if (isKind(value) && value >= min && value <= max && (value > above || above === -Infinity)) return value
  throw new InvalidArgumentError(`Expected ${kind}${describeRange(range)} but received '${text}'.`)
}

/** An option parser for whole numbers: `.option('-n <count>', '…', integer({ min: 1 }))`. */
export function integer(range: Range = {}): (text: string) => number {
  return (text) => parseNumber(text, 'a whole number', Number.isSafeInteger, range)
}

/** An option parser for devices. */
function device(text: string): DeviceChoice {
  if (devicePattern.test(text)) return text as DeviceChoice
  throw new InvalidArgumentError(`Expected 'auto', 'cpu', 'cuda' or 'cuda:n' but received '${text}'.`)
}

/** An option parser for finite numbers. */
export function number(range: Range = {}): (text: string) => number {
  return (text) => parseNumber(text, 'a number', Number.isFinite, range)
}

/** An option parser for an option that may be given several times. */
export function repeated(text: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), text]
}

/** What `addPolicyOptions` puts into a command's options. */
export interface PolicyOptions {
  policy: string
  device?: DeviceChoice
  dtype?: 'f32' | 'bf16'
  threads?: number
}

/** Adds --policy, --device, --dtype and --threads. */
export function addPolicyOptions(command: Command, { required = true } = {}): Command {
  const flags = '-p, --policy <source>'
  const meaning = 'a model folder, a .gguf file, or org/name on the hub'
  if (required) command.requiredOption(flags, meaning)
  else command.option(flags, meaning)
  return command
    .option(
      '--device <name>',
      "where to compute: 'auto', 'cpu', 'cuda' or 'cuda:n' (default: SSRL_DEVICE, else 'auto')",
      device,
    )
    .addOption(
      new Option(
        '--dtype <type>',
        'compute in this type (default: bf16 where the CPU computes it, else f32)',
      ).choices(['f32', 'bf16']),
    )
    .option(
      '--threads <n>',
      'compute threads (default: SSRL_THREADS, else all physical cores)',
      integer({ min: 1 }),
    )
}

/** What `addSamplingOptions` puts into a command's options. */
export interface SamplingFlags {
  temperature?: number
  topP?: number
  topK?: number
  minP?: number
  maxNewTokens?: number
  stop?: string[]
  seed?: number
}

/** Adds the sampling flags; `defaults` are shown in the help. Without `stops` the command says itself where to stop. */
export function addSamplingOptions(
  command: Command,
  defaults: SamplingFlags = {},
  { stops = true } = {},
): Command {
  const stop = 'stop after this text; may be given several times'
  if (stops) command.option('--stop <text>', stop, repeated, defaults.stop)
  return command
    .option('--temperature <t>', '0 is greedy', number({ min: 0 }), defaults.temperature)
    .option(
      '--top-p <p>',
      'sample from the likeliest tokens that add up to p',
      number({ above: 0, max: 1 }),
      defaults.topP,
    )
    .option('--top-k <k>', 'sample from the k likeliest tokens; 0 is all', integer({ min: 0 }), defaults.topK)
    .option(
      '--min-p <p>',
      'sample from tokens at least p times as likely as the likeliest',
      number({ min: 0, max: 1 }),
      defaults.minP,
    )
    .option(
      '--max-new-tokens <n>',
      'at most this many new tokens',
      integer({ min: 1 }),
      defaults.maxNewTokens,
    )
    .option('--seed <n>', 'the same seed gives the same tokens', integer({ min: 0 }), defaults.seed)
}
