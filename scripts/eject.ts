import { relative } from 'node:path'
import type { Command } from 'commander'
import { eject } from '../src/index.ts'
import { printer } from './connection.ts'

export function addEject(program: Command): void {
  program
    .command('eject')
    .description("write the missing steps into your application's own node-pg-migrate folder")
    .argument('<dir>', 'that folder')
    .action(async (directory: string, _options: unknown, command: Command) => {
      const result = await eject(directory)
      const lines = result.written.map((path) => `wrote ${relative('.', path)}`)
      printer(command)(result, lines.join('\n') || `${directory} has every step: nothing to do`)
    })
}
