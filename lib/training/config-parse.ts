import { SsrlError } from '../errors.ts'
import { type Config, defaultOf, lookup, type SettingName, settingNames, type TrainerName } from './config.ts'
import { requireSense } from './config-sense.ts'

/** Some settings, not necessarily all; what is absent or undefined takes its default. */
export type PartialConfig = { [K in SettingName]?: Config[K] | undefined }

/**
 * Checks settings and fills in defaults.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` for an unknown name (with the nearest known one), a value of the wrong type
 * or out of range, and settings that make no sense together.
 */
export function parseConfig(input: PartialConfig, trainer: TrainerName): Config {
  const known = settingNames(trainer)
  for (const name of Object.keys(input)) requireKnown(name, known, trainer)
  const config: Record<string, unknown> = {}
  for (const name of Object.keys(allDefaults(trainer)) as SettingName[]) {
    const value = input[name]
    config[name] = value === undefined ? defaultOf(name, trainer) : checked(name, value)
  }
  requireSense(config as Config, input)
  return config as Config
}

function allDefaults(trainer: TrainerName): Record<string, unknown> {
  const names = new Set([...settingNames('ssrl'), ...settingNames('sft')])
  return Object.fromEntries([...names].map((name) => [name, defaultOf(name, trainer)]))
}

function requireKnown(name: string, known: readonly string[], trainer: TrainerName): void {
  if (known.includes(name)) return
  const elsewhere = settingNames(trainer === 'ssrl' ? 'sft' : 'ssrl').includes(name as SettingName)
  const place = elsewhere
    ? `is a setting of ${trainer === 'ssrl' ? 'SFTTrainer' : 'SSRLTrainer'} only`
    : 'is not known'
  const hint = elsewhere ? '' : `. The nearest one known is "${nearest(name, known)}"`
  throw new SsrlError('ERR_INVALID_CONFIG', `The setting "${name}" ${place}${hint}`)
}

function checked(name: SettingName, value: unknown): unknown {
  const { kind } = lookup(name)
  const result = kind.schema.safeParse(value)
  if (result.success) return result.data
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected ${kind.expects} for ${name} but received ${describe(value)}`,
  )
}

export function describe(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number') return String(value)
  return `${JSON.stringify(value) ?? String(value)} of type ${typeof value}`
}

/** The known name with the smallest edit distance. */
export function nearest(name: string, known: readonly string[]): string {
  const distances = known.map((other) => editDistance(name.toLowerCase(), other.toLowerCase()))
  return known[distances.indexOf(Math.min(...distances))]!
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replace, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}

/** Names of settings that differ between a checkpoint and what is asked for now, those that may differ aside. */
export function differences(stored: Config, wanted: PartialConfig): string[] {
  return (Object.keys(wanted) as SettingName[])
    .filter((name) => wanted[name] !== undefined && !lookup(name).free)
    .filter((name) => JSON.stringify(stored[name]) !== JSON.stringify(wanted[name]))
    .map(
      (name) => `${name} (checkpoint: ${JSON.stringify(stored[name])}, now: ${JSON.stringify(wanted[name])})`,
    )
}
