/** The data of supervised fine-tuning. */
import { flag, integer, optional } from './kinds.ts'
import { sft } from './setting.ts'

export const supervisedSettings = {
  batchSize: sft(integer({ min: 1 }), 32, 'Examples per optimizer step', { trl: 'TRL: 8 per device' }),
  shuffle: sft(flag(), true, 'Shuffle the examples anew in every epoch; false: in the order given'),
  endToken: sft(flag(), true, 'Put the end token after each completion, and train it'),
  completionOnly: sft(flag(), true, 'Train on completion tokens only; false: on all tokens'),
  maskInformation: sft(
    flag(),
    false,
    'Leave closed information blocks that answer a search out of the loss, as RL does: for demonstrations with documents of a real search',
  ),
  maxLength: sft(
    optional(integer({ min: 2 })),
    null,
    'Examples of more tokens are dropped at load, with a count; null: the context',
    { trl: 'TRL truncates at 1024' },
  ),
  packing: sft(
    flag(),
    false,
    'Fill each row with whole examples up to packedLength tokens; they do not see each other',
  ),
  packedLength: sft(integer({ min: 2 }), 1024, 'Tokens of a packed row; batchSize then counts rows'),
} as const
