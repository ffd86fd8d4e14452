/* main.c - agentsbx-launcher: one static program, its role is argv[1].
 *
 *   broker FD_CONTROL FD_BROKER FD_HOSTPIDFD [--debug]   started by the host
 *                                                        (broker.h)
 *   zygote                                               zygote of commands, on fd 3
 *                                                        (reaper.h)
 */
#include <string.h>

#include "../reaper/reaper.h"
#include "broker.h"

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "broker"))
        return sbx_broker_main(argc, argv);
    if (argc >= 2 && !strcmp(argv[1], "zygote"))
        return sbx_command_zygote_main();
    return 2;
}
