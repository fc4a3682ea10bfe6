/**
 * The one table of settings. Types, defaults, validation, command-line flags and docs/config.md all come from it.
 * Names and defaults follow TRL where it has them; `trl` says where a default differs, and why.
 */
import { advantageSettings } from './settings/advantages.ts'
import { lossSettings } from './settings/loss.ts'
import { optimizerSettings } from './settings/optimizer.ts'
import { recordSettings } from './settings/records.ts'
import { rewardSettings } from './settings/reward.ts'
import { rolloutSettings } from './settings/rollout.ts'
import { searchSettings } from './settings/searches.ts'
import type { Setting, TrainerName } from './settings/setting.ts'
import { supervisedSettings } from './settings/supervised.ts'

export type { Setting, TrainerName } from './settings/setting.ts'

/** In the order of docs/config.md. */
export const settings = {
  ...rolloutSettings,
  ...searchSettings,
  ...rewardSettings,
  ...advantageSettings,
  ...lossSettings,
  ...supervisedSettings,
  ...optimizerSettings,
  ...recordSettings,
} as const

export type SettingName = keyof typeof settings

type ValueOf<S> = S extends Setting<infer T> ? T : never
/** Every setting, defaults filled in. Those that a trainer doesn't know keep their default. */
export type Config = { -readonly [K in SettingName]: ValueOf<(typeof settings)[K]> }

/** Names of the settings that a trainer knows, in the table's order. */
export function settingNames(trainer: TrainerName): SettingName[] {
  return (Object.keys(settings) as SettingName[]).filter((name) => lookup(name).for.includes(trainer))
}

export function lookup(name: SettingName): Setting<unknown> {
  return settings[name] as Setting<unknown>
}

/** The default of a setting for one trainer. */
export function defaultOf(name: SettingName, trainer: TrainerName): unknown {
  const { sftDefault, default: value } = lookup(name)
  return trainer === 'sft' && sftDefault !== undefined ? sftDefault : value
}
