# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hekate_swarm_global_optspecs
    string join \n h/help V/version
end

function __fish_hekate_swarm_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hekate_swarm_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hekate_swarm_using_subcommand
    set -l cmd (__fish_hekate_swarm_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -s h -l help -d 'Print help'
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -s V -l version -d 'Print version'
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -f -a "load" -d 'Load a seeder with leechers and report'
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -f -a "limit" -d 'Measure what one core can push through loopback TCP as 16 KiB piece messages'
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l torrent -d 'Metainfo file, or a directory of them, the most popular first; may be repeated' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l address -d 'Where the seeder listens' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l peers -d 'Leechers that ask and read as fast as they can' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l slow -d 'Leechers that read at --slow-rate' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l slow-rate -d 'What a slow leecher reads, in bytes per second' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l stalled -d 'Leechers that ask for 250 blocks and stop reading' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l idle -d 'Leechers that say hello and nothing else' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l connect-rate -d 'New connections per second; 0 is a flash crowd, all at once' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l churn -d 'Leechers replaced per second once all have come' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l return-after -d 'A leecher that is refused or dropped comes back after this many milliseconds' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l first-address -d 'Number of the first loopback address, so that several swarms can run together' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l order -d 'The order in which a leecher asks' -r -f -a "pieces\t'Whole pieces in random order, the blocks of each in sequence: what clients do'
blocks\t'Single blocks in random order: the worst for a disk'
sequential\t'From a random place onward and around: a player'"
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l pipeline -d 'Blocks that each leecher asks for ahead' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l refill -d 'Blocks that must have come before as many more are asked for; 1 asks whenever something was read, as clients do' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l block -d 'Length of a block in bytes' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l zipf -d 'Exponent of the popularity of torrents (Zipf\'s law); 0 makes all alike' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l stalled-buffer -d 'Receive buffer in bytes of each leecher that stops reading, so that what the kernel holds is the seeder\'s; by default the kernel adapts it' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l verify -d 'Share of the blocks that is compared with the content, 0 to 1' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l content -d 'Where the content lies; without it whole pieces are compared with their hashes' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seconds -d 'How long to measure, in seconds, after everybody has come and the warm-up' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l warm-up -d 'How long to wait before measuring, in seconds' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l ready -d 'How long the seeder may take until it serves, in seconds' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seed -d 'Seed of all that is random' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l pid -d 'Process of the seeder, to look at its processor time and memory' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l cpu -d 'Processor for the swarm' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seeder-cpu -d 'Processor for the seeder that is started' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seeder-log -d 'Where the started seeder\'s output goes' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l json -d 'Write the report as JSON to this file' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l label -d 'Name of the run in the report' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l leave -d 'Leechers leave when they have everything, instead of starting over'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l no-fast -d 'Do not offer the fast extension (BEP 6)'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l quiet -d 'No progress lines'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l file -d 'File whose content is sent; by default one is made, and held in the page cache' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l connections -d 'Connections that are sent to in turn' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l seconds -d 'Seconds for each measurement' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l batch -d 'Blocks for each system call; may be repeated' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l cpu -d 'Processor for the receiver' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l sender-cpu -d 'Processor for the sender' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l json -d 'Write the report as JSON to this file' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -s h -l help -d 'Print help'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "load" -d 'Load a seeder with leechers and report'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "limit" -d 'Measure what one core can push through loopback TCP as 16 KiB piece messages'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
