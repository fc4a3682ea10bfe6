import { Command } from 'commander'
import { print } from './common.ts'

export function doctorCommand(): Command {
  return new Command('doctor').option('--json', 'print as JSON').action(() => print('…'))
}
