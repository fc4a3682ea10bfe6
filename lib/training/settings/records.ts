/** Evaluation, collapse alarms, checkpoints and logs. */
import { choice, integer, number, optional, text } from './kinds.ts'
import { freely, setting, ssrl } from './setting.ts'

export const recordSettings = {
  evaluateEvery: setting(
    integer({ min: 0 }),
    0,
    'Evaluate after every so many steps, and after the last; 0: only after the last',
  ),
  evaluationSamples: ssrl(integer({ min: 1 }), 1, 'Samples per question when evaluating'),
  evaluationTemperature: ssrl(number({ min: 0 }), 0, 'Temperature when evaluating; 0 is greedy'),
  evaluationLimit: setting(
    optional(integer({ min: 1 })),
    null,
    'Evaluate on the first so many questions only',
  ),

  alarms: ssrl(
    choice('off', 'warn', 'stop'),
    'warn',
    'Signs of a collapse: not watched, told, or told and the run stopped after the step, evaluated and saved',
    { trl: 'no such setting in TRL', free: true },
  ),
  alarmWindow: ssrl(integer({ min: 1 }), 10, 'Steps whose mean is looked at', freely),
  alarmFall: ssrl(
    optional(number({ above: 0, max: 1 })),
    0.5,
    'Share of its best mean that format score or exact match may lose; null: no alarm',
    freely,
  ),
  alarmEntropyMin: ssrl(
    optional(number({ above: 0 })),
    0.01,
    'Entropy in nats that the mean may not fall below; null: no alarm',
    freely,
  ),
  alarmEntropyMax: ssrl(
    optional(number({ above: 0 })),
    6,
    'Entropy in nats that the mean may not rise above; null: no alarm',
    freely,
  ),
  alarmZeroVariance: ssrl(
    optional(number({ min: 0, max: 1 })),
    0.95,
    'Share of groups that may have equal rewards; null: no alarm',
    freely,
  ),
  alarmRepetition: ssrl(
    optional(number({ above: 0, max: 1 })),
    0.5,
    'Share of all answers that may be one and the same, whatever the question; null: no alarm',
    freely,
  ),
  alarmLengthGrowth: ssrl(
    optional(number({ above: 1 })),
    3,
    'Times the length at the start that completions may have; null: no alarm',
    freely,
  ),
  outputDirectory: setting(
    optional(text('a folder')),
    null,
    'Folder of records, trajectories, checkpoints and the final policy; null: nothing is written',
    { free: true },
  ),
  saveEvery: setting(
    integer({ min: 0 }),
    0,
    'Checkpoint after every so many steps, and after the last; 0: only after the last, and the best',
    {
      trl: 'TRL: 500',
      free: true,
    },
  ),
  keep: setting(integer({ min: 1 }), 2, 'Checkpoints kept, the best one aside', {
    trl: 'TRL: all of them',
    free: true,
  }),
  logTrajectories: ssrl(integer({ min: 0 }), 1, 'Write the trajectories of every so many steps; 0: none', {
    free: true,
  }),
} as const
