/** AdamW, its schedule and the size of a pass. */
import { choice, integer, number } from './kinds.ts'
import { setting } from './setting.ts'

export const optimizerSettings = {
  learningRate: setting(number({ above: 0 }), 1e-6, 'Peak learning rate of AdamW', { sftDefault: 2e-5 }),
  adamBeta1: setting(number({ min: 0, below: 1 }), 0.9, 'AdamW β1'),
  adamBeta2: setting(number({ min: 0, below: 1 }), 0.999, 'AdamW β2'),
  adamEpsilon: setting(number({ above: 0 }), 1e-8, 'AdamW ε'),
  weightDecay: setting(number({ min: 0 }), 0.01, 'Decoupled weight decay, on every parameter', {
    trl: 'TRL: 0; SSRL: 0.01',
  }),
  maxGradNorm: setting(number({ above: 0 }), 1, 'Global norm that gradients are clipped to'),
  schedule: setting(choice('constant', 'linear', 'cosine'), 'constant', 'Learning rate after warm-up', {
    trl: 'TRL: linear; SSRL: constant',
  }),
  scheduleFloor: setting(
    number({ min: 0, max: 1 }),
    0,
    'Share of the learning rate that linear and cosine end at',
  ),
  scheduleHold: setting(
    number({ min: 0, max: 1 }),
    0,
    'Share of maxSteps before which linear and cosine do not begin to fall',
  ),
  warmupSteps: setting(integer({ min: 0 }), 0, 'Steps of linear warm-up'),
  warmupRatio: setting(number({ min: 0, max: 1 }), 0, 'The same as a share of maxSteps; not both', {
    trl: 'SSRL: 0.02',
  }),
  microBatchTokens: setting(
    integer({ min: 1 }),
    2048,
    'Tokens per forward and backward pass, a prompt that neighbours share counted once; changes memory and speed only',
    {
      trl: 'TRL counts sequences per device',
    },
  ),
} as const
