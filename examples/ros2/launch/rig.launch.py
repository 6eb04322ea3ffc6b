"""The rig in a process of its own, brought up to the state active."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition


def generate_launch_description() -> LaunchDescription:
    """Start the node and configure it; activate it once it is configured."""
    config = PathJoinSubstitution([FindPackageShare("page4d_ros"), "config", "rig.yaml"])
    rig = LifecycleNode(
        package="page4d_ros",
        executable="rig_node",
        name="page4d_rig",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("config")],
        output="screen",
    )
    matcher = matches_action(rig)
    configure = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matcher, transition_id=Transition.TRANSITION_CONFIGURE)
    )
    activate = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matcher, transition_id=Transition.TRANSITION_ACTIVATE)
    )
    # only after configuring: a node that somebody deactivates stays inactive
    configured = OnStateTransition(
        target_lifecycle_node=rig, start_state="configuring", goal_state="inactive", entities=[activate]
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("config", default_value=config, description="file of parameters"),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
            RegisterEventHandler(configured),
            rig,
            configure,
        ]
    )
