import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { SsrlError } from '../errors.ts'
import { defaultOf, lookup, type SettingName, settingNames, type TrainerName } from '../training/config.ts'
import type { PartialConfig } from '../training/config-parse.ts'

/** `numGenerations` → `--num-generations`; the output folder has the short name that all commands share. */
export function flagOf(name: SettingName): string {
  if (name === 'outputDirectory') return '--output'
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** Adds `--config` and a flag for every setting of a trainer, from the one table. */
export function addConfigOptions(command: Command, trainer: TrainerName): Command {
  command.option('--config <file>', 'settings as JSON; flags win over it')
  for (const name of settingNames(trainer)) command.addOption(optionOf(name, trainer))
  return command
}

function optionOf(name: SettingName, trainer: TrainerName): Option {
  const { kind, description } = lookup(name)
  const value = defaultOf(name, trainer)
  const flag = flagOf(name)
  const shown = `(default: ${value === null ? 'none' : JSON.stringify(value)})`
  if (kind.placeholder !== '') return new Option(`${flag} <${kind.placeholder}>`, `${description} ${shown}`)
  // A switch that is on by default can only be turned off, and the other way round.
  if (value === true) return new Option(flag.replace('--', '--no-'), `turn off: ${description} ${shown}`)
  return new Option(flag, `${description} ${shown}`)
}

/**
 * The settings that were given: those of the `--config` file, and over them those of the command line.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` when the file is not a JSON object
 */
export async function givenSettings(command: Command, trainer: TrainerName): Promise<PartialConfig> {
  const { config } = command.opts<{ config?: string }>()
  const settings: Record<string, unknown> = config === undefined ? {} : await readConfigFile(config)
  for (const name of settingNames(trainer)) {
    const key = optionOf(name, trainer).attributeName()
    if (command.getOptionValueSource(key) !== 'cli') continue
    const word: unknown = command.getOptionValue(key)
    settings[name] = typeof word === 'string' ? lookup(name).kind.read(word) : word
  }
  return settings as PartialConfig
}

async function readConfigFile(file: string): Promise<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return { ...parsed }
    throw new Error('it is no object')
  } catch (cause) {
    const reason = (cause as Error).message
    throw new SsrlError('ERR_INVALID_CONFIG', `Expected a JSON object of settings in ${file}: ${reason}`, {
      cause,
    })
  }
}
