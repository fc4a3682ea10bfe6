/** How long a run is, and how it samples. */
import { flag, integer, number, optional, text } from './kinds.ts'
import { setting, ssrl } from './setting.ts'

export const rolloutSettings = {
  maxSteps: setting(integer({ min: 1 }), 100, 'Optimizer steps of the whole run', {
    trl: 'TRL: -1 (epochs decide); a run here always states its length',
  }),
  seed: setting(
    integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    42,
    'Seed of sampling and of the data order',
  ),

  promptsPerStep: ssrl(
    integer({ min: 1 }),
    16,
    'Questions per optimizer step; each gives numGenerations trajectories',
    {
      trl: 'TRL counts completions per device; SSRL used 256 questions',
    },
  ),
  numGenerations: ssrl(
    integer({ min: 1 }),
    8,
    'Trajectories per question (the group G); estimators that compare within a group need 2; SSRL used 5',
  ),
  maxPromptLength: ssrl(
    optional(integer({ min: 1 })),
    null,
    'Prompts of more tokens are dropped at load, with a count; null: what the context leaves',
    {
      trl: 'TRL cut prompts at 512',
    },
  ),
  maxCompletionLength: ssrl(integer({ min: 1 }), 256, 'Largest number of new tokens; SSRL used 4096'),
  temperature: ssrl(
    number({ above: 0 }),
    1,
    'Sampling temperature, part of every log-prob; 0 (greedy) cannot be trained on',
  ),
  topP: ssrl(
    number({ above: 0, max: 1 }),
    1,
    'Only 1: truncated sampling changes the distribution that is trained',
  ),
  topK: ssrl(integer({ min: 0 }), 0, 'Only 0: see topP'),
  minP: ssrl(number({ min: 0, max: 1 }), 0, 'Only 0: see topP'),
  stopAtAnswer: ssrl(
    flag(),
    true,
    'Stop at </answer>; false trains the end token, as the SSRL reference does',
  ),
  promptTemplate: setting(
    text('a template'),
    'self-search',
    'Instruction: a built-in name, a file, or the wording itself, with {question} where the question stands',
    {
      trl: 'no such setting in TRL',
    },
  ),
} as const
