/** What is known of one setting. */
import type { Kind } from './kinds.ts'

export type TrainerName = 'ssrl' | 'sft'

export interface Setting<T> {
  kind: Kind<T>
  default: T
  description: string
  /** Where the default is not TRL's. */
  trl?: string
  /** Which trainers know it. */
  for: readonly TrainerName[]
  /** A run may be resumed with another value, since the result doesn't depend on it. */
  free?: boolean
  /** Default of the SFT trainer where it differs. */
  sftDefault?: T
}

type Notes<T> = Omit<Setting<T>, 'kind' | 'default' | 'description' | 'for'>

const both = ['ssrl', 'sft'] as const

export function setting<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: both, ...notes }
}

export function ssrl<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: ['ssrl'], ...notes }
}

export function sft<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: ['sft'], ...notes }
}

/** Of settings that are ours, and that a resumed run may have otherwise. */
export const freely = { trl: 'no such setting in TRL', free: true } as const
