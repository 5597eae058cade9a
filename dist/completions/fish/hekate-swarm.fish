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
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -f -a "limit" -d 'Measure how fast one core can send 16 KiB piece messages over loopback TCP'
complete -c hekate-swarm -n "__fish_hekate_swarm_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l torrent -d 'Metainfo file, or a directory of them, the most popular first; may be repeated' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l address -d 'Where the seeder listens' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l peers -d 'Leechers that request and read as fast as they can' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l slow -d 'Leechers that read at --slow-rate' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l slow-rate -d 'What a slow leecher reads, in bytes per second' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l stalled -d 'Leechers that request 250 blocks and stop reading' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l idle -d 'Leechers that send a handshake and nothing else' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l connect-rate -d 'New connections per second; 0 means all at once' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l churn -d 'Leechers replaced per second once all are connected' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l return-after -d 'Milliseconds until a refused or closed leecher connects again' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l first-address -d 'Number of the first loopback address, so that several swarms can run together' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l order -d 'The order in which a leecher requests blocks' -r -f -a "pieces\t'Pieces in random order, the blocks of each in sequence, as clients do'
blocks\t'Single blocks in random order, the worst case for a disk'
sequential\t'From a random position onward, with wrap-around, like a media player'"
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l pipeline -d 'Requests that each leecher keeps outstanding' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l refill -d 'Blocks that must arrive before as many more are requested; 1 requests whenever something was read, as clients do' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l block -d 'Length of a block in bytes' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l zipf -d 'Exponent of the popularity of torrents (Zipf\'s law); 0 makes all equally popular' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l encryption -d 'How leechers encrypt their connections (MSE)' -r -f -a "none\t'Not at all'
both\t'By an encrypted handshake, on which plain text follows if the seeder selects that'
rc4\t'By RC4'"
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l stalled-buffer -d 'Receive buffer in bytes of each leecher that stops reading, so that the kernel\'s memory is on the seeder\'s side; by default the kernel adapts it' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l verify -d 'Share of the blocks to compare with the content, 0 to 1' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l content -d 'Directory of the content; without it whole pieces are compared with their hashes' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seconds -d 'How long to measure, in seconds, after all are connected and the warm-up' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l warm-up -d 'How long to wait before measuring, in seconds' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l ready -d 'How long to wait for the seeder to serve, in seconds' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seed -d 'Seed of the random generator' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l pid -d 'Process id of the seeder, to measure its processor time and memory' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l cpu -d 'Processor for the swarm' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seeder-cpu -d 'Processor for the started seeder' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l seeder-log -d 'File for the output of the started seeder' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l json -d 'Write the report as JSON to this file' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l label -d 'Name of the run in the report' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l leave -d 'Leechers leave when they are complete, instead of starting over'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l no-fast -d 'Do not offer the fast extension (BEP 6)'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -l quiet -d 'Print no progress lines'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l file -d 'File to send; by default one is made, and held in the page cache' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l connections -d 'Connections to send to in turn' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l seconds -d 'Seconds per measurement' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l batch -d 'Blocks per system call; may be repeated' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l cpu -d 'Processor for the receiver' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l sender-cpu -d 'Processor for the sender' -r
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -l json -d 'Write the report as JSON to this file' -r -F
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand limit" -s h -l help -d 'Print help'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "load" -d 'Load a seeder with leechers and report'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "limit" -d 'Measure how fast one core can send 16 KiB piece messages over loopback TCP'
complete -c hekate-swarm -n "__fish_hekate_swarm_using_subcommand help; and not __fish_seen_subcommand_from load limit help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
